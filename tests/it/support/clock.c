/*
 * Shifts the wall clock of one program. Load this library with LD_PRELOAD, and set HOOKSTREAM_TEST_CLOCK to a file of 8
 * bytes with the offset in nanoseconds. If the file changes while the program runs, its clock jumps. The monotonic clock
 * stays right, as on a machine whose wall clock was set.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const int64_t right = 0;
static const volatile int64_t *shift = &right;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("HOOKSTREAM_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED)
        abort(); /* a test with the right clock would prove nothing */
    shift = page;
    close(file);
}

static struct timespec moved(struct timespec time, int64_t by) {
    int64_t ns = time.tv_nsec + by % SECOND;
    time.tv_sec += by / SECOND;
    if (ns < 0) {
        ns += SECOND;
        time.tv_sec--;
    } else if (ns >= SECOND) {
        ns -= SECOND;
        time.tv_sec++;
    }
    time.tv_nsec = ns;
    return time;
}

int clock_gettime(clockid_t id, struct timespec *time) {
    int status = syscall(SYS_clock_gettime, id, time);
    if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        *time = moved(*time, *shift);
    return status;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/*
 * Waits until a time of the wall clock, as librdkafka's threads do. The kernel re-evaluates such a wait when the clock is
 * set, so this function does too.
 */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    for (;;) {
        struct timespec now, slice;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = (int64_t)(until->tv_sec - now.tv_sec) * SECOND + until->tv_nsec - now.tv_nsec;
        if (left > SECOND / 20)
            left = SECOND / 20;
        clock_gettime(CLOCK_MONOTONIC, &slice);
        slice = moved(slice, left > 0 ? left : 0);
        int status = pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &slice);
        if (status != ETIMEDOUT || left < SECOND / 20)
            return status;
    }
}

/* The C11 function that librdkafka uses; in glibc it has the same types. */
int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    switch (pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
