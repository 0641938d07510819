/* Tries to get out. Static, so that it runs in an image that has nothing else.

   probes control|contained NAME... | all   KEY=VALUE...

   Every probe runs in a process of its own with five seconds, and prints `NAME gained|refused ERRNO DETAIL`.
   Without a KEY that a probe needs it ends by SIGABRT: a probe that goes for nothing shows nothing.
   `control` says that it may prepare what it needs: on the machine, in namespaces that are thrown away.
   Probes that would harm use arguments that the kernel refuses; what tells the wall from the kernel is errno. */
#define _GNU_SOURCE
#include "probes.h"

int control;
char detail[256];

static const char *keys[64];
static int key_count;
static pid_t first;

const char *given(const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < key_count; i++)
        if (!strncmp(keys[i], key, length) && keys[i][length] == '=') return keys[i] + length + 1;
    fprintf(stderr, "probes: %s= is missing\n", key);
    kill(first, SIGABRT);
    _exit(2);
}

long number(const char *key) { return strtol(given(key), 0, 0); }

static const struct probe *tables[] = {mount_probes, kernel_probes, process_probes, outside_probes, 0};

static void attempt(const struct probe *probe) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(5);
        setsid(); /* a group that can be ended, and a session that can have a terminal */
        if (control && (unshare(CLONE_NEWNS | CLONE_NEWUTS) || mount("", "/", 0, MS_REC | MS_PRIVATE, 0))) _exit(1);
        errno = 0;
        int gained = probe->run();
        int error = errno;
        detail[strcspn(detail, "\n")] = 0;
        printf("%s %s %d %s\n", probe->name, gained ? "gained" : "refused", gained ? 0 : error, detail);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    kill(-child, SIGKILL);
    if (!WIFEXITED(status)) printf("%s died %d\n", probe->name, WTERMSIG(status));
    fflush(stdout);
}

int main(int count, char **words) {
    signal(SIGPIPE, SIG_IGN);
    if (count > 1 && !strcmp(words[1], "who")) return who();
    if (count > 1 && !strcmp(words[1], "victim")) return victim(count > 2 ? words[2] : "");
    if (count > 1 && !strcmp(words[1], "hunt")) return hunt();
    if (count < 3) return 2;
    first = getpid();
    control = !strcmp(words[1], "control");
    for (int i = 3; i < count; i++) keys[key_count++] = words[i];
    for (int t = 0; tables[t]; t++)
        for (const struct probe *probe = tables[t]; probe->name; probe++)
            if (!strcmp(words[2], "all") || !strcmp(words[2], probe->name)) attempt(probe);
    return 0;
}
