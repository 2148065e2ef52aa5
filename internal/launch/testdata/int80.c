/* Asks for the process id by the entry of 32-bit programs, where it is call 20. */
#include <stdio.h>

int main(void)
{
	long pid;

	__asm__ volatile("int $0x80" : "=a"(pid) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	fputs(pid > 0 ? "ok" : "no", stdout);
	return 0;
}
