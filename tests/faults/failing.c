/* Preloaded, lets the k-th operation below a folder fail: write, flush, rename, create.
   fault_arm(root, k, error, lasting) starts to count; fault_count() tells how many there were.
   Error 0 kills the process instead.
   The count is shared by all processes that are forked after the first call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct state { char root[PATH_MAX]; long k, count, error, lasting, armed; };
static struct state *s;

void fault_arm(const char *root, long k, long error, long lasting) {
  if (!s) s = mmap(0, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  strncpy(s->root, root, PATH_MAX - 1);
  s->k = k, s->error = error, s->lasting = lasting, s->count = 0;
  s->armed = 1;
}

void fault_disarm(void) { if (s) s->armed = 0; }
long fault_count(void) { return s ? s->count : 0; }

static int fails(const char *path) {
  if (!s || !s->armed || !path || strncmp(path, s->root, strlen(s->root))) return 0;
  long n = __sync_add_and_fetch(&s->count, 1);
  if (!(s->lasting ? n >= s->k : n == s->k) || s->k < 1) return 0;
  if (!s->error) raise(SIGKILL);
  errno = s->error;
  return 1;
}

static int fails_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!s || !s->armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return fails(path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BY_FD(type, name, call, ...) \
  type name(int fd, ##__VA_ARGS__) { return fails_fd(fd) ? -1 : NEXT(name) call; }

BY_FD(ssize_t, write, (fd, b, n), const void *b, size_t n)
BY_FD(ssize_t, pwrite, (fd, b, n, o), const void *b, size_t n, off_t o)
BY_FD(ssize_t, pwrite64, (fd, b, n, o), const void *b, size_t n, off64_t o)
BY_FD(ssize_t, writev, (fd, v, n), const struct iovec *v, int n)
BY_FD(int, fsync, (fd))
BY_FD(int, fdatasync, (fd))
BY_FD(int, ftruncate, (fd, n), off_t n)
BY_FD(int, ftruncate64, (fd, n), off64_t n)

int rename(const char *a, const char *b) { return fails(b) ? -1 : NEXT(rename)(a, b); }
int renameat(int d, const char *a, int e, const char *b) {
  return fails(b) ? -1 : NEXT(renameat)(d, a, e, b);
}
int mkdir(const char *a, mode_t m) { return fails(a) ? -1 : NEXT(mkdir)(a, m); }

#define CREATING(name)                                                 \
  int name(const char *path, int flags, ...) {                         \
    va_list v;                                                         \
    va_start(v, flags);                                                \
    mode_t m = flags & (O_CREAT | O_TMPFILE) ? va_arg(v, mode_t) : 0;  \
    va_end(v);                                                         \
    if (flags & O_CREAT && fails(path)) return -1;                     \
    return NEXT(name)(path, flags, m);                                 \
  }
CREATING(open)
CREATING(open64)

#define CREATING_AT(name)                                              \
  int name(int d, const char *path, int flags, ...) {                  \
    va_list v;                                                         \
    va_start(v, flags);                                                \
    mode_t m = flags & (O_CREAT | O_TMPFILE) ? va_arg(v, mode_t) : 0;  \
    va_end(v);                                                         \
    if (flags & O_CREAT && fails(path)) return -1;                     \
    return NEXT(name)(d, path, flags, m);                              \
  }
CREATING_AT(openat)
CREATING_AT(openat64)
