/* The floor: what reading the streams costs in C, with epoll and nothing else.
 *
 *   client PORT STREAMS REQUESTS MAX_TOKENS
 *
 * STREAMS connections in a closed loop until REQUESTS responses were read. An event is a blank line.
 * Its times are those of its own reads. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    long sent_ns, last_ns;
    int events;
    char tail[4];
} Stream;

static long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static double at(long *values, long count, double share) {
    if (!count) return 0;
    long place = (long)(share * count);
    return values[place < count ? place : count - 1] / 1e6;
}

static char request[8192];
static int request_bytes;

static void ask(int fd, Stream *s) {
    s->events = 0;
    s->sent_ns = now_ns();
    if (send(fd, request, request_bytes, MSG_NOSIGNAL) != request_bytes) perror("client: send");
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "client PORT STREAMS REQUESTS MAX_TOKENS\n");
        return 2;
    }
    int streams = atoi(argv[2]), requests = atoi(argv[3]), tokens = atoi(argv[4]), on = 1;
    char prompt[1536], body[2048];
    memset(prompt, 'w', sizeof prompt - 1);
    prompt[sizeof prompt - 1] = 0;
    int body_bytes = snprintf(body, sizeof body,
                              "{\"model\":\"bench\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
                              "\"%s\"}],\"max_tokens\":%d}", prompt, tokens);
    request_bytes = snprintf(request, sizeof request,
                             "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
                             "application/json\r\ncontent-length: %d\r\n\r\n%s", body_bytes, body);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    Stream *of = calloc(65536, sizeof *of);
    long room = (long)requests * (tokens + 2), gaps = 0, firsts = 0, events = 0;
    long *gap_ns = malloc(room * sizeof *gap_ns), *first_ns = malloc(requests * sizeof *first_ns);
    int epoll_fd = epoll_create1(0), asked = 0, done = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    long begin_ns = now_ns();
    for (int i = 0; i < streams && asked < requests; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
            perror("client: connect");
            return 1;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
        ask(fd, &of[fd]);
        asked++;
    }
    static char piece[65536];
    struct epoll_event ready[1024];
    while (done < asked) {
        int n = epoll_wait(epoll_fd, ready, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            Stream *s = &of[fd];
            ssize_t bytes = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
            if (bytes < 0 && errno == EAGAIN) continue;
            if (bytes <= 0) {
                fprintf(stderr, "client: a connection ended early\n");
                return 1;
            }
            long at_ns = now_ns();
            for (char *p = piece; (p = memmem(p, piece + bytes - p, "\n\n", 2)); p += 2) {
                /* the tokens only: finish_reason, usage and [DONE] are three more */
                if (s->events < tokens) {
                    if (!s->events)
                        first_ns[firsts++] = at_ns - s->sent_ns;
                    else
                        gap_ns[gaps++] = at_ns - s->last_ns;
                    s->last_ns = at_ns;
                    events++;
                }
                s->events++;
            }
            if (bytes >= 5 && !memcmp(piece + bytes - 5, "0\r\n\r\n", 5)) {
                done++;
                if (asked < requests) {
                    asked++;
                    ask(fd, s);
                }
            }
        }
    }
    double wall_s = (now_ns() - begin_ns) / 1e9;
    getrusage(RUSAGE_SELF, &after);
    double cpu_s = after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                   before.ru_stime.tv_sec +
                   (after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                    before.ru_stime.tv_usec) / 1e6;
    qsort(first_ns, firsts, sizeof *first_ns, by_size);
    qsort(gap_ns, gaps, sizeof *gap_ns, by_size);
    printf("{\"requests\": %d, \"events\": %ld, \"wall_s\": %.4f, \"cpu_s\": %.4f, \"cpu_us_per_event\": %.3f, "
           "\"ttft_p50_ms\": %.3f, \"ttft_p99_ms\": %.3f, \"itl_p50_ms\": %.3f, \"itl_p99_ms\": %.3f}\n",
           done, events, wall_s, cpu_s, cpu_s / events * 1e6, at(first_ns, firsts, .5),
           at(first_ns, firsts, .99), at(gap_ns, gaps, .5), at(gap_ns, gaps, .99));
    return 0;
}
