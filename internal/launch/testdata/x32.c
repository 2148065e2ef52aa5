/* Asks for the process id as an x32 program would, and prints the errno. */
#include <stdio.h>

int main(void)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(39L | 0x40000000L) : "memory", "rcx", "r11");
	printf("%ld", ret < 0 ? -ret : 0);
	return 0;
}
