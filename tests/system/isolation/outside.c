/* The machine's network, sockets and shared memory. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include "probes.h"

static int open_socket(int family, int kind, int protocol) { return socket(family, kind, protocol) >= 0; }
static int packet(void) { return open_socket(AF_PACKET, SOCK_RAW, htons(3)); }
static int raw4(void) { return open_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int raw6(void) { return open_socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6); }
static int old_packet(void) { return open_socket(AF_INET, SOCK_PACKET, htons(3)); }
static int vsock(void) { return open_socket(AF_VSOCK, SOCK_STREAM, 0); }
static int alg(void) { return open_socket(AF_ALG, SOCK_SEQPACKET, 0); }
static int audit(void) { return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }
static int uevent(void) { return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT); }
static int netfilter(void) { return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER); }
static int diag(void) { return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG); }
static int xdp(void) { return open_socket(44, SOCK_RAW, 0); }
static int family_high_bits(void) {
    return syscall(SYS_socket, 0x100000000L | AF_VSOCK, SOCK_STREAM, 0) >= 0;
}
static int mptcp(void) { return open_socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */); }
static int mptcp6(void) { return open_socket(AF_INET6, SOCK_STREAM, 262); }
static int udplite(void) { return open_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE); }

/* A new interface: only whoever owns the network namespace may. */
static int new_interface(void) {
    struct { struct nlmsghdr head; unsigned char rest[16]; struct nlattr info; struct nlattr kind; char name[8]; } ask;
    memset(&ask, 0, sizeof ask);
    ask.head = (struct nlmsghdr){sizeof ask, 16 /* RTM_NEWLINK */, 0x605, 1, 0};
    ask.info = (struct nlattr){sizeof ask.info + sizeof ask.kind + sizeof ask.name, 18 /* IFLA_LINKINFO */};
    ask.kind = (struct nlattr){sizeof ask.kind + sizeof ask.name, 1 /* IFLA_INFO_KIND */};
    strcpy(ask.name, "dummy");
    if (control) unshare(CLONE_NEWNET);
    int handle = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (handle < 0) return 0;
    if (send(handle, &ask, sizeof ask, 0) < 0) return 0;
    char answer[4096];
    if (recv(handle, answer, sizeof answer, 0) < 0) return 0;
    struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)answer);
    errno = -error->error;
    return error->error == 0 || (control && error->error == -EOPNOTSUPP);
}
static int interface_down(void) {
    if (control) unshare(CLONE_NEWNET);
    int handle = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq wanted;
    memset(&wanted, 0, sizeof wanted);
    strcpy(wanted.ifr_name, "lo");
    if (ioctl(handle, SIOCGIFFLAGS, &wanted)) return 0;
    wanted.ifr_flags ^= IFF_ALLMULTI;
    return ioctl(handle, SIOCSIFFLAGS, &wanted) == 0;
}

static int loopback(void) {
    struct sockaddr_in there = {AF_INET, htons(number("port")), {htonl(INADDR_LOOPBACK)}, {0}};
    int handle = socket(AF_INET, SOCK_STREAM, 0);
    return connect(handle, (struct sockaddr *)&there, sizeof there) == 0;
}
static int abstract_socket(void) {
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    const char *name = given("abstract");
    strncpy(there.sun_path + 1, name, sizeof there.sun_path - 2);
    int handle = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(handle, (struct sockaddr *)&there, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) == 0;
}
static int shared_memory(void) { return shmget(number("ipc"), 0, 0) >= 0; }
static int semaphore(void) { return semget(number("ipc"), 0, 0) >= 0; }
static int message_queue(void) { return msgget(number("ipc"), 0) >= 0; }
static int posix_memory(void) { return shm_open(given("posix"), O_RDWR, 0) >= 0; }
static int posix_queue(void) { return mq_open(given("posix"), O_RDWR) != (mqd_t)-1; }

/* A process of the machine that has something of every kind, and tells where; it goes when its input ends. */
int victim(const char *marker) {
    char name[64], byte;
    int key = 0x52420000 | (getpid() & 0xffff), id;
    snprintf(name, sizeof name, "/relbuild-probe-%d", getpid());
    strcpy(secret, "VICTIM");
    int shared = shmget(key, 4096, IPC_CREAT | 0666);
    int locks = semget(key, 1, IPC_CREAT | 0666), messages = msgget(key, IPC_CREAT | 0666);
    shm_open(name, O_CREAT | O_RDWR, 0666);
    mq_open(name, O_CREAT | O_RDWR, 0666, 0);
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    strcpy(there.sun_path + 1, name);
    int local = socket(AF_UNIX, SOCK_STREAM, 0), network = socket(AF_INET, SOCK_STREAM, 0);
    bind(local, (struct sockaddr *)&there, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    listen(local, 8);
    struct sockaddr_in here = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    socklen_t size = sizeof here;
    bind(network, (struct sockaddr *)&here, size);
    listen(network, 8);
    getsockname(network, (struct sockaddr *)&here, &size);
    struct { struct file_handle head; unsigned char bytes[128]; } handle;
    handle.head.handle_bytes = 128;
    if (syscall(SYS_name_to_handle_at, AT_FDCWD, marker, &handle, &id, 0)) handle.head.handle_bytes = 0;
    printf("victim=%d address=%p ipc=%d posix=%s abstract=%s port=%d handle_type=%d handle=", getpid(),
           (void *)secret, key, name, name, ntohs(here.sin_port), handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++) printf("%02x", handle.head.f_handle[i]);
    printf("\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) ;
    shmctl(shared, IPC_RMID, 0);
    semctl(locks, 0, IPC_RMID);
    msgctl(messages, IPC_RMID, 0);
    shm_unlink(name);
    mq_unlink(name);
    return 0;
}

const struct probe outside_probes[] = {
    {"socket-packet", packet}, {"socket-raw", raw4}, {"socket-raw6", raw6}, {"socket-old-packet", old_packet},
    {"socket-vsock", vsock}, {"socket-alg", alg}, {"socket-netlink-audit", audit},
    {"socket-netlink-uevent", uevent}, {"socket-netlink-netfilter", netfilter}, {"socket-netlink-diag", diag},
    {"socket-xdp", xdp}, {"socket-vsock-high-bits", family_high_bits}, {"socket-udplite", udplite},
    {"socket-mptcp", mptcp}, {"socket-mptcp6", mptcp6},
    {"new-interface", new_interface}, {"change-interface", interface_down}, {"machine-loopback", loopback},
    {"abstract-socket", abstract_socket}, {"sysv-shared-memory", shared_memory}, {"sysv-semaphore", semaphore},
    {"sysv-message-queue", message_queue}, {"posix-shared-memory", posix_memory},
    {"posix-message-queue", posix_queue}, {0, 0}};
