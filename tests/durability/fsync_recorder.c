/*
 * A library for LD_PRELOAD that writes down which content of which file was made durable.
 *
 * A killed process loses nothing that reached the page cache, so SIGKILL alone cannot show a missing fsync.
 * This library keeps a journal of facts ($FSYNC_JOURNAL); after the kill, cutback.py takes the files below
 * $FSYNC_ROOT back to what the journal says was durable, as a power cut may.
 *
 * Journal lines, fields separated by tabs:
 *   E dev:ino size path      a file that was there before it was opened; its content counts as durable
 *   C dev:ino path           a file that was created
 *   S dev:ino size           fsync or fdatasync returned: everything up to size is durable
 *   T dev:ino size           cut to size by ftruncate or O_TRUNC, which may have become durable at once
 *   D path                   a folder's fsync returned: its entries are durable
 *   R old new saved          a rename; what `new` was before has the extra name `saved` ("-": it was not there)
 *   U dev:ino path           an unlink
 *   W dev:ino offset saved   durable bytes at offset are about to be overwritten; `saved` holds the old ones
 *   X path reason            something that this library does not follow
 *
 * What grows in other ways (mmap, copy_file_range, sendfile, fallocate) is cut as well: lengths are asked from the
 * kernel when a file is synced, and all else counts as lost. sync_file_range makes nothing durable (it writes no
 * metadata), so it is not intercepted. FSYNC_RECORDER_LIE=1 leaves S and D out: the test's own test.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Open addressing by (dev, ino); a server has a few hundred files open over a test. */
#define TABLE_SIZE 65536
struct entry { dev_t dev; ino_t ino; off_t durable; int used; };
static struct entry table[TABLE_SIZE];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static int lie;
static char root[PATH_MAX];
static char saved_folder[PATH_MAX];
static unsigned long saved_count;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) { static const char m[] = "fsync_recorder: a libc function is missing\n"; (void)!syscall(SYS_write, 2, m, sizeof m - 1); _exit(99); }
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("FSYNC_JOURNAL"), *below = getenv("FSYNC_ROOT");
    if (!where || !below) return;
    if (!realpath(below, root)) return;
    lie = getenv("FSYNC_RECORDER_LIE") != NULL;
    snprintf(saved_folder, sizeof saved_folder, "%s.saved", where);
    syscall(SYS_mkdirat, AT_FDCWD, saved_folder, 0700);
    saved_count = (unsigned long)getpid() * 1000000UL;
    journal = syscall(SYS_openat, AT_FDCWD, where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int active(void) { return journal >= 0; }

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    char line[3 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < sizeof line) (void)!syscall(SYS_write, journal, line, length);
}

static int below_root(const char *path)
{
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static struct entry *find(dev_t dev, ino_t ino, int make)
{
    size_t at = ((size_t)ino * 11400714819323198485ULL ^ dev) % TABLE_SIZE;
    for (size_t tries = 0; tries < TABLE_SIZE; tries++, at = (at + 1) % TABLE_SIZE) {
        if (!table[at].used) {
            if (!make) return NULL;
            table[at] = (struct entry){ dev, ino, 0, 1 };
            return &table[at];
        }
        if (table[at].dev == dev && table[at].ino == ino) return &table[at];
    }
    return NULL;
}

/* The file behind fd if this library follows it. Needs the lock. */
static struct entry *followed(int fd, struct stat *status)
{
    if (fstat(fd, status) != 0 || !S_ISREG(status->st_mode)) return NULL;
    return find(status->st_dev, status->st_ino, 0);
}

/* An absolute path without links in its folder, which must exist. */
static int absolute(int folder, const char *path, char *out)
{
    char name[PATH_MAX], base[PATH_MAX], link[64];
    if (path[0] == '/') {
        if (snprintf(name, sizeof name, "%s", path) >= (int)sizeof name) return -1;
    } else {
        if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) return -1; }
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return -1;
            base[length] = 0;
        }
        if (snprintf(name, sizeof name, "%s/%s", base, path) >= (int)sizeof name) return -1;
    }
    char *slash = strrchr(name, '/');
    char last[NAME_MAX + 1];
    if (snprintf(last, sizeof last, "%s", slash + 1) >= (int)sizeof last) return -1;
    slash[slash == name ? 1 : 0] = 0;
    if (!realpath(name, base)) return -1;
    return snprintf(out, PATH_MAX, "%s/%s", strcmp(base, "/") ? base : "", last) >= PATH_MAX ? -1 : 0;
}

static void opened(int fd, const char *path, int flags, int existed)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return;
    if ((flags & O_ACCMODE) == O_RDONLY && existed) return;
    unsigned long dev = status.st_dev, ino = status.st_ino;
    struct entry *entry = find(status.st_dev, status.st_ino, 0);
    if (!existed) {
        entry = find(status.st_dev, status.st_ino, 1);
        if (!entry) return;
        entry->durable = 0;
        note("C\t%lu:%lu\t%s\n", dev, ino, path);
    } else if (flags & O_TRUNC) {
        entry = find(status.st_dev, status.st_ino, 1);
        if (!entry) return;
        entry->durable = 0;
        note("T\t%lu:%lu\t0\n", dev, ino);
    } else if (!entry) {
        entry = find(status.st_dev, status.st_ino, 1);
        if (!entry) return;
        entry->durable = status.st_size;
        note("E\t%lu:%lu\t%lld\t%s\n", dev, ino, (long long)status.st_size, path);
    }
    if (flags & (O_SYNC | O_DSYNC)) note("X\t%s\tO_SYNC or O_DSYNC\n", path);
}

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    char full[PATH_MAX];
    struct stat before;
    if (!active() || absolute(folder, path, full) != 0 || !below_root(full))
        return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = stat(full, &before) == 0;
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    int error = errno;
    if (fd >= 0) opened(fd, full, flags, existed);
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(last) ({ mode_t m = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, last); m = va_arg(a, mode_t); va_end(a); } m; })
int open(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags | O_LARGEFILE, MODE(flags)); }
int openat(int folder, const char *path, int flags, ...) { return open_at(folder, path, flags, MODE(flags)); }
int openat64(int folder, const char *path, int flags, ...) { return open_at(folder, path, flags | O_LARGEFILE, MODE(flags)); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Saves durable bytes that a write of `count` bytes at `offset` would replace. Needs the lock. */
static void save_overwritten(int fd, struct entry *entry, off_t offset, size_t count)
{
    if (offset >= entry->durable || count == 0) return;
    size_t length = (size_t)(entry->durable - offset) < count ? (size_t)(entry->durable - offset) : count;
    char name[PATH_MAX + 32], from[64];
    if (snprintf(name, sizeof name, "%s/%lu", saved_folder, ++saved_count) >= (int)sizeof name) return;
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    int in = syscall(SYS_openat, AT_FDCWD, from, O_RDONLY | O_CLOEXEC, 0);
    int out = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char buffer[65536];
    off_t at = offset;
    while (in >= 0 && out >= 0 && length > 0) {
        ssize_t got = pread(in, buffer, length < sizeof buffer ? length : sizeof buffer, at);
        if (got <= 0) break;
        (void)!syscall(SYS_write, out, buffer, got);
        at += got;
        length -= got;
    }
    if (in >= 0) syscall(SYS_close, in);
    if (out >= 0) syscall(SYS_close, out);
    note("W\t%lu:%lu\t%lld\t%s\n", (unsigned long)entry->dev, (unsigned long)entry->ino, (long long)offset, name);
}

/* offset < 0: the file's own position. */
static void before_write(int fd, off_t offset, size_t count)
{
    struct stat status;
    if (!active()) return;
    int error = errno;
    pthread_mutex_lock(&lock);
    struct entry *entry = followed(fd, &status);
    if (entry && entry->durable > 0) {
        if (offset < 0) {
            int flags = fcntl(fd, F_GETFL);
            offset = flags >= 0 && (flags & O_APPEND) ? status.st_size : lseek(fd, 0, SEEK_CUR);
        }
        save_overwritten(fd, entry, offset, count);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
}

static size_t total(const struct iovec *parts, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

ssize_t write(int fd, const void *data, size_t count) { before_write(fd, -1, count); return REAL(write)(fd, data, count); }
ssize_t writev(int fd, const struct iovec *parts, int count) { before_write(fd, -1, total(parts, count)); return REAL(writev)(fd, parts, count); }
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { before_write(fd, at, count); return REAL(pwrite)(fd, data, count, at); }
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) { before_write(fd, at, count); return REAL(pwrite64)(fd, data, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { before_write(fd, at, total(parts, count)); return REAL(pwritev)(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { before_write(fd, at, total(parts, count)); return REAL(pwritev64)(fd, parts, count, at); }

static int synced(int fd, long call)
{
    struct stat status;
    int known = active() && fstat(fd, &status) == 0; /* the size before: later writes are not covered */
    int result = syscall(call, fd);
    if (result != 0 || !known || lie) return result;
    pthread_mutex_lock(&lock);
    if (S_ISDIR(status.st_mode)) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length > 0) { path[length] = 0; if (below_root(path)) note("D\t%s\n", path); }
    } else if (S_ISREG(status.st_mode)) {
        struct entry *entry = find(status.st_dev, status.st_ino, 0);
        if (entry) {
            entry->durable = status.st_size;
            note("S\t%lu:%lu\t%lld\n", (unsigned long)entry->dev, (unsigned long)entry->ino, (long long)status.st_size);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int cut(int fd, off_t size)
{
    struct stat status;
    if (!active()) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    struct entry *entry = followed(fd, &status);
    int result = syscall(SYS_ftruncate, fd, size), error = errno;
    if (result == 0 && entry && size < entry->durable) {
        entry->durable = size;
        note("T\t%lu:%lu\t%lld\n", (unsigned long)entry->dev, (unsigned long)entry->ino, (long long)size);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int rename_at(int old_folder, const char *old, int new_folder, const char *new, unsigned flags)
{
    char from[PATH_MAX], to[PATH_MAX], saved[PATH_MAX + 32] = "-";
    if (!active() || absolute(old_folder, old, from) || absolute(new_folder, new, to) || !below_root(to))
        return syscall(SYS_renameat2, old_folder, old, new_folder, new, flags);
    pthread_mutex_lock(&lock);
    if (access(to, F_OK) == 0) {
        snprintf(saved, sizeof saved, "%s/%lu", saved_folder, ++saved_count);
        if (syscall(SYS_linkat, AT_FDCWD, to, AT_FDCWD, saved, 0) != 0) note("X\t%s\tits old content could not be kept\n", to);
    }
    int result = syscall(SYS_renameat2, old_folder, old, new_folder, new, flags), error = errno;
    if (result == 0) note("R\t%s\t%s\t%s\n", from, to, saved);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int rename(const char *old, const char *new) { return rename_at(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int a, const char *old, int b, const char *new) { return rename_at(a, old, b, new, 0); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { return rename_at(a, old, b, new, flags); }

static int unlink_at(int folder, const char *path, int flags)
{
    char full[PATH_MAX];
    struct stat status;
    if (!active() || (flags & AT_REMOVEDIR) || absolute(folder, path, full) || !below_root(full))
        return syscall(SYS_unlinkat, folder, path, flags);
    pthread_mutex_lock(&lock);
    int known = lstat(full, &status) == 0;
    int result = syscall(SYS_unlinkat, folder, path, flags), error = errno;
    if (result == 0 && known) note("U\t%lu:%lu\t%s\n", (unsigned long)status.st_dev, (unsigned long)status.st_ino, full);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlink_at(folder, path, flags); }
