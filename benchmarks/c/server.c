/* The benchmark's server: an OpenAI-compatible stream on an exact schedule, and a log of the truth.
 *
 *   server PORT TTFT_MS ITL_MS TRUTH_FILE
 *
 * First token TTFT after the request was read whole, then one per ITL on an absolute schedule, each
 * in a packet of its own; the end (finish_reason, usage, [DONE], last chunk) in one further packet.
 * One process, one epoll set, one binary heap of due times. Truth, one line per response:
 *
 *   id received_ns read_ns sent_ns sent_ns ...
 *
 * received: the kernel's stamp of the request's last bytes (SO_TIMESTAMPNS); read: when this
 * process had read it; sent: just after send() of each token returned. All CLOCK_REALTIME. What was
 * sent is the truth, also where the schedule was missed. `id` is the X-Request-Id header.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 20000
#define REQUEST_BYTES (1 << 18)

typedef struct {
    int fd;
    char *in;
    size_t in_used;
    long received_ns, read_ns, due_ns;
    int tokens, sent;
    uint32_t generation;
    char id[128];
    long *sent_ns;
    int sent_room;
    char *out; /* what the kernel would not take yet */
    size_t out_used;
} Connection;

typedef struct {
    long due_ns;
    int fd;
    uint32_t generation;
} Due;

static Connection connections[MAX_CONNECTIONS];
static Due *heap;
static int heap_used, heap_room;
static long ttft_ns, itl_ns;
static FILE *truth;
static volatile sig_atomic_t stopping;
static int epoll_fd;

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                           "transfer-encoding: chunked\r\n\r\n";
static const char TOKEN_CHAT[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,"
    "\"finish_reason\":null}]}\n\n";
static const char TOKEN_TEXT[] =
    "data: {\"id\":\"cmpl-0123456789abcdef\",\"object\":\"text_completion\",\"created\":1700000000,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"text\":\" token\",\"logprobs\":null,"
    "\"finish_reason\":null}]}\n\n";

static long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void heap_push(Due due) {
    if (heap_used == heap_room) {
        heap_room = heap_room ? 2 * heap_room : 4096;
        heap = realloc(heap, heap_room * sizeof *heap);
    }
    int i = heap_used++;
    while (i && heap[(i - 1) / 2].due_ns > due.due_ns) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = due;
}

static Due heap_pop(void) {
    Due top = heap[0], last = heap[--heap_used];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_used) break;
        if (child + 1 < heap_used && heap[child + 1].due_ns < heap[child].due_ns) child++;
        if (heap[child].due_ns >= last.due_ns) break;
        heap[i] = heap[child];
        i = child;
    }
    if (heap_used) heap[i] = last;
    return top;
}

static void drop(Connection *c) {
    if (c->fd < 0) return;
    close(c->fd);
    c->fd = -1;
    c->generation++;
    c->in_used = c->out_used = 0;
    c->tokens = 0;
}

/* Send all; keep what the kernel would not take. */
static void put(Connection *c, const char *data, size_t bytes) {
    ssize_t done = 0;
    if (!c->out_used) {
        done = send(c->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0) {
            if (errno != EAGAIN) {
                drop(c);
                return;
            }
            done = 0;
        }
    }
    if ((size_t)done < bytes) {
        c->out = realloc(c->out, c->out_used + bytes - done);
        memcpy(c->out + c->out_used, data + done, bytes - done);
        c->out_used += bytes - done;
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = c->fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    }
}

static void put_rest(Connection *c) {
    ssize_t done = send(c->fd, c->out, c->out_used, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0) {
        if (errno != EAGAIN) drop(c);
        return;
    }
    memmove(c->out, c->out + done, c->out_used - done);
    c->out_used -= done;
    if (!c->out_used) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = c->fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    }
}

static int chunk(char *to, const char *data) {
    size_t bytes = strlen(data);
    return sprintf(to, "%zx\r\n%s\r\n", bytes, data);
}

static char token_chat[512], token_text[512], first_chat[1024], first_text[1024];
static int token_chat_bytes, token_text_bytes, first_chat_bytes, first_text_bytes;

static void put_end(Connection *c, int chat) {
    char data[1024], out[2048];
    int n = 0;
    const char *kind = chat ? "chat.completion.chunk" : "text_completion";
    sprintf(data,
            "data: {\"id\":\"x\",\"object\":\"%s\",\"created\":1,\"model\":\"bench\",\"choices\":[{\"index\":0,"
            "%s,\"finish_reason\":\"length\"}]}\n\n",
            kind, chat ? "\"delta\":{}" : "\"text\":\"\"");
    n += chunk(out + n, data);
    sprintf(data,
            "data: {\"id\":\"x\",\"object\":\"%s\",\"created\":1,\"model\":\"bench\",\"choices\":[],"
            "\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
            kind, c->tokens, 256 + c->tokens);
    n += chunk(out + n, data);
    n += chunk(out + n, "data: [DONE]\n\n");
    n += sprintf(out + n, "0\r\n\r\n");
    put(c, out, n);
}

static int is_chat(const Connection *c) { return c->id[sizeof c->id - 1]; }

static void play(Connection *c) {
    int chat = is_chat(c);
    if (!c->sent)
        put(c, chat ? first_chat : first_text, chat ? first_chat_bytes : first_text_bytes);
    else
        put(c, chat ? token_chat : token_text, chat ? token_chat_bytes : token_text_bytes);
    if (c->fd < 0) return;
    c->sent_ns[c->sent++] = now_ns();
    if (c->sent < c->tokens) {
        c->due_ns += itl_ns;
        heap_push((Due){c->due_ns, c->fd, c->generation});
        return;
    }
    put_end(c, chat);
    if (truth) {
        fprintf(truth, "%s %ld %ld", c->id[0] ? c->id : "-", c->received_ns, c->read_ns);
        for (int i = 0; i < c->sent; i++) fprintf(truth, " %ld", c->sent_ns[i]);
        fputc('\n', truth);
    }
    c->tokens = 0;
}

static void answer_get(Connection *c, const char *path) {
    char out[1024];
    const char *body = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\"}]}";
    int found = !strncmp(path, "/v1/models ", 11);
    if (!strncmp(path, "/health ", 8)) {
        found = 1;
        body = "{}";
    }
    if (!found) body = "{\"detail\":\"Not Found\"}";
    int n = sprintf(out, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                    found ? "200 OK" : "404 Not Found", strlen(body), body);
    put(c, out, n);
}

/* Look for a whole request in what was read; start its response. */
static void take_request(Connection *c) {
    c->in[c->in_used] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return;
    size_t head_bytes = end + 4 - c->in, body_bytes = 0;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    if (length && length < end) body_bytes = strtoul(length + 17, NULL, 10);
    if (c->in_used < head_bytes + body_bytes) return;
    if (!strncmp(c->in, "GET ", 4)) {
        answer_get(c, c->in + 4);
        c->in_used = 0;
        return;
    }
    char *tokens = strstr(end, "\"max_tokens\":");
    if (!tokens) tokens = strstr(end, "\"max_completion_tokens\":"); /* the peers' name for it */
    c->tokens = tokens ? atoi(strchr(tokens, ':') + 1) : 16;
    if (c->tokens < 1) c->tokens = 1;
    c->id[0] = 0;
    c->id[sizeof c->id - 1] = !strncmp(c->in, "POST /v1/chat/", 14);
    char *id = strcasestr(c->in, "\r\nx-request-id:");
    if (id && id < end) {
        id += 15;
        while (*id == ' ') id++;
        size_t n = strcspn(id, " \r\n");
        if (n > sizeof c->id - 2) n = sizeof c->id - 2;
        memcpy(c->id, id, n);
        c->id[n] = 0;
    }
    if (c->tokens > c->sent_room) {
        c->sent_room = c->tokens;
        c->sent_ns = realloc(c->sent_ns, c->sent_room * sizeof *c->sent_ns);
    }
    c->sent = 0;
    c->in_used = 0;
    c->read_ns = now_ns();
    if (!c->received_ns) c->received_ns = c->read_ns;
    c->due_ns = c->received_ns + ttft_ns;
    heap_push((Due){c->due_ns, c->fd, c->generation});
}

static void on_readable(Connection *c) {
    char control[64];
    struct iovec piece = {c->in + c->in_used, REQUEST_BYTES - 1 - c->in_used};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->received_ns = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec *t = (struct timespec *)CMSG_DATA(h);
            c->received_ns = t->tv_sec * 1000000000L + t->tv_nsec;
        }
    c->in_used += n;
    take_request(c);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "server PORT TTFT_MS ITL_MS TRUTH_FILE\n");
        return 2;
    }
    ttft_ns = (long)(atof(argv[2]) * 1e6);
    itl_ns = (long)(atof(argv[3]) * 1e6);
    truth = fopen(argv[4], "w");
    static char truth_buffer[1 << 22];
    if (truth) setvbuf(truth, truth_buffer, _IOFBF, sizeof truth_buffer);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    token_chat_bytes = chunk(token_chat, TOKEN_CHAT);
    token_text_bytes = chunk(token_text, TOKEN_TEXT);
    first_chat_bytes = sprintf(first_chat, "%s%s", HEAD, token_chat);
    first_text_bytes = sprintf(first_text, "%s%s", HEAD, token_text);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8192)) {
        perror("server");
        return 1;
    }
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, ready[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    for (int i = 0; i < MAX_CONNECTIONS; i++) connections[i].fd = -1;
    while (!stopping) {
        long wait_ns = heap_used ? heap[0].due_ns - now_ns() : 100000000L;
        struct timespec wait = {0, wait_ns < 0 ? 0 : wait_ns > 100000000L ? 100000000L : wait_ns};
        int n = epoll_pwait2(epoll_fd, ready, 512, &wait, NULL);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                Connection *c = &connections[fd];
                if (ready[i].events & EPOLLOUT && c->fd >= 0) put_rest(c);
                if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->fd >= 0) on_readable(c);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MAX_CONNECTIONS) {
                    close(fd);
                    continue;
                }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
                Connection *c = &connections[fd];
                c->fd = fd;
                c->generation++;
                if (!c->in) c->in = malloc(REQUEST_BYTES);
                c->in_used = 0;
                e = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
            }
        }
        long now = now_ns();
        for (int batch = 0; batch < 256 && heap_used && heap[0].due_ns <= now; batch++) {
            Due due = heap_pop();
            Connection *c = &connections[due.fd];
            if (c->fd >= 0 && c->generation == due.generation && c->tokens) play(c);
        }
    }
    if (truth) fclose(truth);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return 0;
}
