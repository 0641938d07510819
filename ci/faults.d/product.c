/* The one program of the products that faults are injected into, without a C library: small, so that a build is short.
 * With arguments it is a scriptlet's interpreter and leaves a file; without, a server that is ready at once and ends
 * when it is told to. For x86_64. */

enum { WRITE = 1, OPEN = 2, CLOSE = 3, SIGPROCMASK = 14, EXIT = 60, SIGTIMEDWAIT = 128 };
enum { CREATE = 0101, BLOCK = 0, TERMINATE = 15 };

static long call(long number, long a, long b, long c, long d) {
    long result;
    register long fourth __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

static void say(long file, const char *words) {
    long length = 0;
    while (words[length]) length++;
    call(WRITE, file, (long)words, length, 0);
}

__attribute__((used)) static void begin(long *stack) {
    if (stack[0] > 1) {
        long file = call(OPEN, (long)"/usr/lib/small/post", CREATE, 0644, 0);
        if (file < 0) call(EXIT, 1, 0, 0, 0);
        say(file, "made by %post\n");
        call(CLOSE, file, 0, 0, 0);
        call(EXIT, 0, 0, 0, 0);
    }
    unsigned long signals = 1UL << (TERMINATE - 1);
    call(SIGPROCMASK, BLOCK, (long)&signals, 0, sizeof signals);
    say(1, "ready\n");
    while (call(SIGTIMEDWAIT, (long)&signals, 0, 0, sizeof signals) != TERMINATE) {}
    call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
