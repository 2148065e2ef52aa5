/* Prints each name with what getaddrinfo(3) finds: one line a name. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *all = NULL;
		printf("%s", argv[i]);
		if (getaddrinfo(argv[i], "7000", &hints, &all) == 0)
			for (struct addrinfo *a = all; a; a = a->ai_next) {
				char text[INET6_ADDRSTRLEN] = "?";
				const void *addr = a->ai_family == AF_INET
					? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
					: (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
				inet_ntop(a->ai_family, addr, text, sizeof(text));
				printf(" %s", text);
			}
		printf("\n");
	}
	return 0;
}
