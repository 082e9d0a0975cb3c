/* Preloaded library that makes file operations fail, and shifts the clock: see faults.py.

   Operations count if the file's path starts with FAULT_PREFIX. The environment says which one fails:
   FAULT_OPERATION  write, sync or open: the kind that is counted
   FAULT_CALL       number of the failing call, from 1; 0: none
   FAULT_ERROR      eio, emfile, enospc or short (half of the data is written)
   FAULT_BEGIN      file whose first opening begins the count; without it, the count begins with the process
   FAULT_LASTS      1: all later calls fail, too
   FAULT_COUNT      file to which each counted call appends a byte
   FAULT_CLOCK      file with a number of seconds that is added to the time of day */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;
static atomic_int begun;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int counts(const char *operation, const char *path) {
    const char *prefix = getenv("FAULT_PREFIX"), *kind = getenv("FAULT_OPERATION");
    if (getenv("FAULT_BEGIN") && !begun) return 0;
    return prefix && kind && !strcmp(kind, operation) && !strncmp(path, prefix, strlen(prefix));
}

/* Return the error of this call: 0 none, -1 a short write, else an error number. */
static int fault_of(const char *operation, const char *path) {
    int saved = errno;
    if (!counts(operation, path)) return 0;
    const char *count = getenv("FAULT_COUNT"), *call = getenv("FAULT_CALL"), *error = getenv("FAULT_ERROR");
    if (count) {
        int file = NEXT(open)(count, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (file >= 0) { (void)!NEXT(write)(file, "x", 1); close(file); }
    }
    long number = atomic_fetch_add(&calls, 1) + 1, failing = call ? atol(call) : 0;
    errno = saved;
    int fails = failing && (number == failing || (number > failing && getenv("FAULT_LASTS")));
    if (!fails) return 0;
    if (error && !strcmp(error, "emfile")) return EMFILE;
    return !error || !strcmp(error, "eio") ? EIO : !strcmp(error, "short") ? -1 : ENOSPC;
}

static int fault_of_file(const char *operation, int file) {
    char link[64], path[4096];
    if (!getenv("FAULT_PREFIX")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fault_of(operation, path);
}

#define WRITE(CALL, LENGTH)                                  \
    int fault = fault_of_file("write", file);                \
    if (fault > 0) { errno = fault; return -1; }             \
    if (fault < 0) LENGTH = (LENGTH + 1) / 2;                    \
    return CALL;

ssize_t write(int file, const void *data, size_t n) { WRITE(NEXT(write)(file, data, n), n) }
ssize_t pwrite(int file, const void *data, size_t n, off_t at) { WRITE(NEXT(pwrite)(file, data, n, at), n) }
ssize_t pwrite64(int file, const void *data, size_t n, off64_t at) { WRITE(NEXT(pwrite64)(file, data, n, at), n) }

static int sync_fault(int file) {
    int fault = fault_of_file("sync", file);
    if (fault) errno = fault > 0 ? fault : EIO;
    return fault;
}

int fsync(int file) { return sync_fault(file) ? -1 : NEXT(fsync)(file); }
int fdatasync(int file) { return sync_fault(file) ? -1 : NEXT(fdatasync)(file); }
int ftruncate(int file, off_t n) { return sync_fault(file) ? -1 : NEXT(ftruncate)(file, n); }
int ftruncate64(int file, off64_t n) { return sync_fault(file) ? -1 : NEXT(ftruncate64)(file, n); }

static int open_fault(const char *path) {
    char full[4096];
    if (path[0] != '/' && getenv("FAULT_PREFIX") && getcwd(full, sizeof full - strlen(path) - 2)) {
        strcat(full, "/");
        strcat(full, path);
        path = full;
    }
    const char *begin = getenv("FAULT_BEGIN");
    if (begin && !strcmp(path, begin)) begun = 1;
    int fault = fault_of("open", path);
    if (fault) errno = fault > 0 ? fault : EIO;
    return fault;
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = va_arg(rest, mode_t);                                    \
        va_end(rest);                                                          \
        return open_fault(path) ? -1 : NEXT(name)(path, flags, mode);          \
    }
OPEN(open)
OPEN(open64)

DIR *opendir(const char *path) { return open_fault(path) ? NULL : NEXT(opendir)(path); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = NEXT(clock_gettime)(clock, now);
    const char *path = getenv("FAULT_CLOCK");
    if (status || !path || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return status;
    char text[32] = "";
    int file = NEXT(open)(path, O_RDONLY);
    if (file < 0) return status;
    if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
    close(file);
    return status;
}
