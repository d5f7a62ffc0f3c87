/* A stand-in for NVIDIA's libnvidia-ml.so.1: a machine with GPUs that a test describes in a text file.
 *
 * The file is named by the environment variable NVML_STANDIN and read anew at each call, so that a test can
 * change the machine while programs run. Replace it as a whole (write another, rename it). Without it there
 * is no driver: NVML_ERROR_DRIVER_NOT_LOADED.
 *
 * One thing a line; fields are separated by tabs; the first is the kind, the others are key=value. Bytes,
 * milliwatts, millijoules, milliseconds. What is left out of a `card` is not supported by it.
 *
 *   card      uuid= name= total= reserved= used= memory=v2|v1|none mig=off|on lost=1 util=(percent) power=
 *             energy= ecc=(uncorrected, volatile) remap=(1: failed) recovery=(action) events=1
 *             `used` is what no process listed here holds. The order is that of the PCI bus.
 *   instance  card=(uuid) uuid= name= place= gi= total= reserved= used=     of MIG; the card has mig=on
 *   process   device=(uuid) pid= memory=(left out: not available) graphics=1 bound=1 lag=
 *             bound: it is there for as long as a process of this machine with that pid lives, and then
 *             until its device's memory was asked for `lag` times.
 *   link      a=(uuid) b=(uuid) level= nvlink=1        topology; without, the question is not supported
 *   error     fn= code= device=(uuid; left out: any)   fn: the name that the library exports
 *   delay     fn= ms=
 *   event     card=(uuid) xid= gi=                      an Xid. Event sets see what is added after they
 *                                                       were made: add lines at the end, take none away
 *   allocations  path= pids= lag=                       see below
 *   log       path=                                     each call adds a line to it: name, UUID
 *
 * Allocations are what a stand-in framework takes. `path` is a directory; each file in it is named
 * "<uuid>@<pid>", UUID of a card or an instance, and holds a number of bytes. While that process lives, it is
 * in the device's list of processes, computing, with that memory; after that, until its device's memory was
 * asked for `lag` times. pids: is added to each process id that is told, as in a container, where the ids are
 * the host's. A process that is dead and not yet waited for (a zombie) is dead.
 *
 * As with NVML: what was there at nvmlInit is what there is; a card that is lost (lost=1, or its line is
 * gone) stays lost until nvmlShutdown and nvmlInit, also if it is back.
 *
 * Lags are counted by each process for itself, as calls of nvmlDeviceGetMemoryInfo, any version.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15 };
enum { CARDS = 64, INSTANCES = 128, PROCESSES = 1024, LINKS = 512, RULES = 256, EVENTS = 1024, TEXT = 96 };
#define XID_EVENT 8ULL
#define RECOVERY_ACTION_FIELD 230
#define ABSENT (-1LL)
#define NOT_AVAILABLE (~0ULL)

typedef unsigned long long u64;
typedef struct { char uuid[TEXT]; int lost_in; } *handle_t;  /* lost_in: the session that lost it */
typedef struct { char uuid[TEXT], name[TEXT], memory[8], mig[8];
                 long long total, reserved, used, lost, util, power, energy, ecc, remap, recovery, events; } card_t;
typedef struct { char card[TEXT], uuid[TEXT], name[TEXT]; long long place, gi, total, reserved, used; } instance_t;
typedef struct { char device[TEXT]; long long pid, told, memory, graphics, bound, lag; } process_t;
typedef struct { char a[TEXT], b[TEXT]; long long level, nvlink; } link_t;
typedef struct { char fn[TEXT], device[TEXT]; long long code, ms; } rule_t;
typedef struct { char card[TEXT]; long long xid, gi; } event_t;
typedef struct {
    card_t cards[CARDS]; instance_t instances[INSTANCES]; process_t processes[PROCESSES]; link_t links[LINKS];
    rule_t errors[RULES], delays[RULES]; event_t events[EVENTS]; char log[4096];
    int n_cards, n_instances, n_processes, n_links, n_errors, n_delays, n_events;
} machine_t;

typedef struct { u64 total, free, used; } memory_v1_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; u64 memory; unsigned gi, ci; } process_info_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { void *device; u64 type, data; unsigned gi, ci; } event_data_t;
typedef struct { unsigned field, scope; long long timestamp, latency; unsigned type, result;
                 union { double d; unsigned u; u64 ull; } value; } field_t;
typedef struct { int position, n; char cards[CARDS][TEXT]; } event_set_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int opened, session;
static char session_cards[CARDS][TEXT];
static int n_session_cards;
static handle_t handles[CARDS + INSTANCES];
static int n_handles;
static struct { char device[TEXT]; long long pid, calls; } lags[PROCESSES];  /* of processes that are dead */
static int n_lags;

/* --- the file --- */

static const char *field(char **fields, const char *key) {
    size_t length = strlen(key);
    for (; *fields; fields++)
        if (!strncmp(*fields, key, length) && (*fields)[length] == '=') return *fields + length + 1;
    return NULL;
}

static void text_of(char **fields, const char *key, char *target, size_t size) {
    const char *value = field(fields, key);
    snprintf(target, size, "%s", value ? value : "");
}

static long long number_of(char **fields, const char *key, long long otherwise) {
    const char *value = field(fields, key);
    return value ? strtoll(value, NULL, 10) : otherwise;
}

#define TEXT_OF(key) text_of(f, #key, it->key, sizeof it->key)
#define NUMBER_OF(key, otherwise) it->key = number_of(f, #key, otherwise)

static void read_allocations(machine_t *m, char **f) {
    char path[4096], file[8192];
    text_of(f, "path", path, sizeof path);
    DIR *directory = opendir(path);
    if (!directory) return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        const char *at = strrchr(entry->d_name, '@');
        if (!at || m->n_processes == PROCESSES) continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        FILE *stream = fopen(file, "r");
        if (!stream) continue;
        process_t *it = &m->processes[m->n_processes++];
        snprintf(it->device, TEXT, "%.*s", (int)(at - entry->d_name), entry->d_name);
        it->pid = strtoll(at + 1, NULL, 10);
        it->told = it->pid + number_of(f, "pids", 0);
        if (fscanf(stream, "%lld", &it->memory) != 1) it->memory = 0;
        fclose(stream);
        it->graphics = 0, it->bound = 1;
        NUMBER_OF(lag, 0);
    }
    closedir(directory);
}

static void read_line(machine_t *m, char **f) {
    if (!strcmp(f[0], "card") && m->n_cards < CARDS) {
        card_t *it = &m->cards[m->n_cards++];
        TEXT_OF(uuid), TEXT_OF(name), TEXT_OF(memory), TEXT_OF(mig);
        NUMBER_OF(total, 0), NUMBER_OF(reserved, 0), NUMBER_OF(used, 0), NUMBER_OF(lost, 0);
        NUMBER_OF(util, ABSENT), NUMBER_OF(power, ABSENT), NUMBER_OF(energy, ABSENT), NUMBER_OF(ecc, ABSENT);
        NUMBER_OF(remap, ABSENT), NUMBER_OF(recovery, ABSENT), NUMBER_OF(events, 0);
    } else if (!strcmp(f[0], "instance") && m->n_instances < INSTANCES) {
        instance_t *it = &m->instances[m->n_instances++];
        TEXT_OF(card), TEXT_OF(uuid), TEXT_OF(name);
        NUMBER_OF(place, 0), NUMBER_OF(gi, 0), NUMBER_OF(total, 0), NUMBER_OF(reserved, 0), NUMBER_OF(used, 0);
    } else if (!strcmp(f[0], "process") && m->n_processes < PROCESSES) {
        process_t *it = &m->processes[m->n_processes++];
        TEXT_OF(device), NUMBER_OF(pid, 0), NUMBER_OF(memory, ABSENT), NUMBER_OF(graphics, 0);
        NUMBER_OF(bound, 0), NUMBER_OF(lag, 0);
        it->told = it->pid;
    } else if (!strcmp(f[0], "link") && m->n_links < LINKS) {
        link_t *it = &m->links[m->n_links++];
        TEXT_OF(a), TEXT_OF(b), NUMBER_OF(level, 50), NUMBER_OF(nvlink, 0);
    } else if (!strcmp(f[0], "error") && m->n_errors < RULES) {
        rule_t *it = &m->errors[m->n_errors++];
        TEXT_OF(fn), TEXT_OF(device), NUMBER_OF(code, 999);
    } else if (!strcmp(f[0], "delay") && m->n_delays < RULES) {
        rule_t *it = &m->delays[m->n_delays++];
        TEXT_OF(fn), NUMBER_OF(ms, 0);
    } else if (!strcmp(f[0], "event") && m->n_events < EVENTS) {
        event_t *it = &m->events[m->n_events++];
        TEXT_OF(card), NUMBER_OF(xid, 0), NUMBER_OF(gi, 0xFFFFFFFFLL);
    } else if (!strcmp(f[0], "allocations")) {
        read_allocations(m, f);
    } else if (!strcmp(f[0], "log")) {
        text_of(f, "path", m->log, sizeof m->log);
    }
}

static machine_t *read_machine(void) {
    const char *path = getenv("NVML_STANDIN");
    FILE *stream = path ? fopen(path, "r") : NULL;
    if (!stream) return NULL;
    machine_t *m = calloc(1, sizeof *m);
    char *line = NULL;
    size_t size = 0;
    while (m && getline(&line, &size, stream) >= 0) {
        char *fields[64], *rest = line;
        int n = 0;
        line[strcspn(line, "\n")] = 0;
        for (char *each; n < 63 && (each = strsep(&rest, "\t"));) fields[n++] = each;
        fields[n] = NULL;
        if (n) read_line(m, fields);
    }
    free(line);
    fclose(stream);
    return m;
}

/* --- devices --- */

static card_t *card_named(machine_t *m, const char *uuid) {
    for (int i = 0; i < m->n_cards; i++)
        if (!strcmp(m->cards[i].uuid, uuid)) return &m->cards[i];
    return NULL;
}

static instance_t *instance_named(machine_t *m, const char *uuid) {
    for (int i = 0; i < m->n_instances; i++)
        if (!strcmp(m->instances[i].uuid, uuid)) return &m->instances[i];
    return NULL;
}

static handle_t handle_of(const char *uuid) {  /* always the same for the same UUID */
    for (int i = 0; i < n_handles; i++)
        if (!strcmp(handles[i]->uuid, uuid)) return handles[i];
    if (n_handles == CARDS + INSTANCES) return NULL;
    handle_t handle = calloc(1, sizeof *handle);
    snprintf(handle->uuid, TEXT, "%s", uuid);
    return handles[n_handles++] = handle;
}

static int is_lost(machine_t *m, const char *uuid) {  /* a card */
    handle_t handle = handle_of(uuid);
    card_t *card = card_named(m, uuid);
    if (!card || card->lost) handle->lost_in = session;
    return handle->lost_in == session;
}

static int is_of_session(const char *uuid) {
    for (int i = 0; i < n_session_cards; i++)
        if (!strcmp(session_cards[i], uuid)) return 1;
    return 0;
}

/* --- each call --- */

typedef struct { machine_t *m; card_t *card; instance_t *instance; int result; } call_t;

static void note(machine_t *m, const char *fn, const char *uuid) {
    char line[256];
    int file = *m->log ? open(m->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (file < 0) return;
    int length = snprintf(line, sizeof line, "%s\t%s\n", fn, uuid);
    if (write(file, line, (size_t)length) < 0) { /* then the log lacks it */ }
    close(file);
}

static void wait_as_told(machine_t *m, const char *fn) {
    for (int i = 0; i < m->n_delays; i++)
        if (!strcmp(m->delays[i].fn, fn)) {
            struct timespec time = { m->delays[i].ms / 1000, m->delays[i].ms % 1000 * 1000000 };
            nanosleep(&time, NULL);
        }
}

static int scripted_error(machine_t *m, const char *fn, const char *uuid) {
    for (int i = 0; i < m->n_errors; i++) {
        rule_t *rule = &m->errors[i];
        if (!strcmp(rule->fn, fn) && (!*rule->device || !strcmp(rule->device, uuid))) return (int)rule->code;
    }
    return SUCCESS;
}

static int resolve(call_t *call, handle_t handle) {
    machine_t *m = call->m;
    if (!handle) return INVALID_ARGUMENT;
    call->instance = instance_named(m, handle->uuid);
    const char *card = call->instance ? call->instance->card : handle->uuid;
    if (is_lost(m, card)) return GPU_IS_LOST;
    call->card = card_named(m, card);
    return SUCCESS;
}

/* Takes the lock, which `leave` gives back. `uuid`: of the device that is asked for without a handle. */
static call_t enter(const char *fn, handle_t handle, int has_handle, const char *uuid) {
    call_t call = { read_machine(), NULL, NULL, SUCCESS };
    if (call.m) wait_as_told(call.m, fn);
    pthread_mutex_lock(&lock);
    if (!call.m) {
        call.result = opened ? GPU_IS_LOST : DRIVER_NOT_LOADED;
        return call;
    }
    if (has_handle && handle) uuid = handle->uuid;
    note(call.m, fn, uuid);
    if (!opened && strncmp(fn, "nvmlInit", 8)) call.result = UNINITIALIZED;
    else if ((call.result = scripted_error(call.m, fn, uuid)) == SUCCESS && has_handle)
        call.result = resolve(&call, handle);
    return call;
}

static int leave(call_t *call, int result) {
    free(call->m);
    pthread_mutex_unlock(&lock);
    return result;
}

#define BEGIN(handle) \
    call_t call = enter(__func__, handle, 1, ""); \
    if (call.result != SUCCESS) return leave(&call, call.result)
#define BEGIN_WITHOUT_DEVICE(uuid) \
    call_t call = enter(__func__, NULL, 0, uuid); \
    if (call.result != SUCCESS) return leave(&call, call.result)
#define END(result) return leave(&call, result)
/* A figure of a whole card that may be absent. */
#define END_WITH(target, figure) \
    if (call.instance || (figure) == ABSENT) END(NOT_SUPPORTED); \
    *(target) = (__typeof__(*(target)))(figure); \
    END(SUCCESS)

/* --- the session --- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    BEGIN_WITHOUT_DEVICE("");
    if (!opened++) {
        session++;
        n_session_cards = call.m->n_cards;
        for (int i = 0; i < n_session_cards; i++)
            memcpy(session_cards[i], call.m->cards[i].uuid, TEXT);
    }
    END(SUCCESS);
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    BEGIN_WITHOUT_DEVICE("");
    opened--;
    END(SUCCESS);
}

const char *nvmlErrorString(int result) {
    static __thread char words[64];
    snprintf(words, sizeof words, "Stand-in error %d", result);
    return words;
}

static int answer_text(char *target, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *target, unsigned size) {
    BEGIN_WITHOUT_DEVICE("");
    END(answer_text(target, size, "570.00"));
}

/* For tests in one process: the library as it was when it was loaded. Handles stay what they were. */
void standin_reset(void) {
    pthread_mutex_lock(&lock);
    opened = 0, session++, n_session_cards = 0, n_lags = 0;
    pthread_mutex_unlock(&lock);
}

/* --- discovery --- */

int nvmlDeviceGetCount_v2(unsigned *count) {
    BEGIN_WITHOUT_DEVICE("");
    *count = (unsigned)n_session_cards;
    END(SUCCESS);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *handle) {
    int is_there = index < (unsigned)n_session_cards;
    BEGIN_WITHOUT_DEVICE(is_there ? session_cards[index] : "");
    if (!is_there) END(INVALID_ARGUMENT);
    if (is_lost(call.m, session_cards[index])) END(GPU_IS_LOST);
    *handle = handle_of(session_cards[index]);
    END(SUCCESS);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *handle) {
    BEGIN_WITHOUT_DEVICE(uuid);
    instance_t *instance = instance_named(call.m, uuid);
    const char *card = instance ? instance->card : uuid;
    if (!is_of_session(card)) END(NOT_FOUND);
    if (is_lost(call.m, card)) END(GPU_IS_LOST);
    *handle = handle_of(uuid);
    END(SUCCESS);
}

int nvmlDeviceGetUUID(handle_t handle, char *target, unsigned size) {
    BEGIN(handle);
    END(answer_text(target, size, handle->uuid));
}

int nvmlDeviceGetName(handle_t handle, char *target, unsigned size) {
    BEGIN(handle);
    END(answer_text(target, size, call.instance ? call.instance->name : call.card->name));
}

int nvmlDeviceGetMigMode(handle_t handle, unsigned *current, unsigned *pending) {
    BEGIN(handle);
    if (call.instance || !*call.card->mig) END(NOT_SUPPORTED);
    *current = *pending = !strcmp(call.card->mig, "on");
    END(SUCCESS);
}

int nvmlDeviceGetMaxMigDeviceCount(handle_t handle, unsigned *count) {
    BEGIN(handle);
    *count = *call.card->mig ? 7 : 0;
    END(SUCCESS);
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle_t handle, unsigned index, handle_t *instance) {
    BEGIN(handle);
    for (int i = 0; i < call.m->n_instances; i++) {
        instance_t *it = &call.m->instances[i];
        if (strcmp(it->card, handle->uuid) || it->place != index) continue;
        *instance = handle_of(it->uuid);
        END(SUCCESS);
    }
    END(NOT_FOUND);
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle_t handle, handle_t *card) {
    BEGIN(handle);
    if (!call.instance) END(INVALID_ARGUMENT);
    *card = handle_of(call.instance->card);
    END(SUCCESS);
}

int nvmlDeviceGetGpuInstanceId(handle_t handle, unsigned *id) {
    BEGIN(handle);
    if (!call.instance) END(NOT_SUPPORTED);
    *id = (unsigned)call.instance->gi;
    END(SUCCESS);
}

static link_t *link_of(machine_t *m, handle_t one, handle_t other) {
    for (int i = 0; other && i < m->n_links; i++) {
        link_t *it = &m->links[i];
        if (!strcmp(it->a, one->uuid) && !strcmp(it->b, other->uuid)) return it;
        if (!strcmp(it->b, one->uuid) && !strcmp(it->a, other->uuid)) return it;
    }
    return NULL;
}

int nvmlDeviceGetTopologyCommonAncestor(handle_t handle, handle_t other, unsigned *level) {
    BEGIN(handle);
    link_t *link = link_of(call.m, handle, other);
    if (!link) END(NOT_SUPPORTED);
    *level = (unsigned)link->level;
    END(SUCCESS);
}

int nvmlDeviceGetP2PStatus(handle_t handle, handle_t other, unsigned capability, unsigned *status) {
    BEGIN(handle);
    link_t *link = link_of(call.m, handle, other);
    if (!link) END(NOT_SUPPORTED);
    *status = capability == 2 && link->nvlink ? 0 : 5; /* OK, NOT_SUPPORTED */
    END(SUCCESS);
}

/* --- memory and processes --- */

static int is_alive(long long pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    FILE *stream = fopen(path, "r");
    if (!stream) return 0;
    size_t length = fread(line, 1, sizeof line - 1, stream);
    fclose(stream);
    line[length] = 0;
    const char *state = strrchr(line, ')'); /* the name before it may hold anything */
    return state && state[1] && state[2] != 'Z' && state[2] != 'X';
}

/* Whether a process that is bound to its pid is still to be seen. `counts`: this is a question for memory. */
static int is_seen(process_t *process, int counts) {
    if (!process->bound || is_alive(process->pid)) return 1;
    int i = 0;
    while (i < n_lags && (lags[i].pid != process->pid || strcmp(lags[i].device, process->device))) i++;
    if (i == PROCESSES) return 0;
    if (i == n_lags) {
        memcpy(lags[i].device, process->device, TEXT);
        lags[i].pid = process->pid, lags[i].calls = 0, n_lags++;
    }
    if (counts) lags[i].calls++;
    return lags[i].calls <= process->lag;
}

static int is_on(call_t *call, process_t *process) {
    if (call->instance) return !strcmp(process->device, call->instance->uuid);
    instance_t *instance = instance_named(call->m, process->device);
    return !strcmp(instance ? instance->card : process->device, call->card->uuid);
}

static u64 used_bytes(call_t *call) {  /* without what is reserved */
    long long used = call->instance ? call->instance->used : call->card->used;
    for (int i = 0; i < call->m->n_processes; i++) {
        process_t *process = &call->m->processes[i];
        if (is_on(call, process) && process->memory > 0 && is_seen(process, 1)) used += process->memory;
    }
    return (u64)used;
}

static u64 free_bytes(u64 total, u64 taken) { return taken < total ? total - taken : 0; }

int nvmlDeviceGetMemoryInfo(handle_t handle, memory_v1_t *memory) {
    BEGIN(handle);
    if (!strcmp(call.card->memory, "none")) END(NOT_SUPPORTED);
    u64 reserved = (u64)(call.instance ? call.instance->reserved : call.card->reserved);
    memory->total = (u64)(call.instance ? call.instance->total : call.card->total);
    memory->used = used_bytes(&call) + reserved; /* in version 1 it counts as used */
    memory->free = free_bytes(memory->total, memory->used);
    END(SUCCESS);
}

int nvmlDeviceGetMemoryInfo_v2(handle_t handle, memory_v2_t *memory) {
    BEGIN(handle);
    if (!strcmp(call.card->memory, "none")) END(NOT_SUPPORTED);
    if (!strcmp(call.card->memory, "v1")) END(FUNCTION_NOT_FOUND);
    memory->reserved = (u64)(call.instance ? call.instance->reserved : call.card->reserved);
    memory->total = (u64)(call.instance ? call.instance->total : call.card->total);
    memory->used = used_bytes(&call);
    memory->free = free_bytes(memory->total, memory->used + memory->reserved);
    END(SUCCESS);
}

static int answer_processes(call_t *call, int graphics, unsigned *count, process_info_t *infos) {
    unsigned room = *count, n = 0;
    for (int i = 0; i < call->m->n_processes; i++) {
        process_t *process = &call->m->processes[i];
        if (!process->graphics != !graphics || !is_on(call, process) || !is_seen(process, 0)) continue;
        if (infos && n < room) {
            u64 memory = process->memory == ABSENT ? NOT_AVAILABLE : (u64)process->memory;
            infos[n] = (process_info_t){ (unsigned)process->told, memory, 0xFFFFFFFF, 0xFFFFFFFF };
        }
        n++;
    }
    *count = n;
    return n > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESS_QUERY(name, graphics) \
    int name(handle_t handle, unsigned *count, process_info_t *infos) { \
        BEGIN(handle); \
        END(answer_processes(&call, graphics, count, infos)); \
    }
PROCESS_QUERY(nvmlDeviceGetComputeRunningProcesses_v2, 0)
PROCESS_QUERY(nvmlDeviceGetComputeRunningProcesses_v3, 0)
PROCESS_QUERY(nvmlDeviceGetGraphicsRunningProcesses_v2, 1)
PROCESS_QUERY(nvmlDeviceGetGraphicsRunningProcesses_v3, 1)

/* --- use and health --- */

int nvmlDeviceGetUtilizationRates(handle_t handle, utilization_t *rates) {
    BEGIN(handle);
    rates->memory = 0;
    END_WITH(&rates->gpu, call.card->util);
}

int nvmlDeviceGetPowerUsage(handle_t handle, unsigned *milliwatts) {
    BEGIN(handle);
    END_WITH(milliwatts, call.card->power);
}

int nvmlDeviceGetTotalEnergyConsumption(handle_t handle, u64 *millijoules) {
    BEGIN(handle);
    END_WITH(millijoules, call.card->energy);
}

int nvmlDeviceGetTotalEccErrors(handle_t handle, unsigned kind, unsigned counter, u64 *count) {
    BEGIN(handle);
    long long figure = kind == 1 && counter == 0 ? call.card->ecc : 0; /* UNCORRECTED, VOLATILE */
    END_WITH(count, call.card->ecc == ABSENT ? ABSENT : figure);
}

int nvmlDeviceGetRemappedRows(handle_t handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    BEGIN(handle);
    *corrected = *uncorrected = *pending = 0;
    END_WITH(failed, call.card->remap);
}

int nvmlDeviceGetFieldValues(handle_t handle, int count, field_t *fields) {
    BEGIN(handle);
    for (int i = 0; i < count; i++) {
        int is_known = fields[i].field == RECOVERY_ACTION_FIELD && call.card->recovery != ABSENT && !call.instance;
        fields[i].result = is_known ? SUCCESS : NOT_SUPPORTED;
        fields[i].type = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
        fields[i].value.u = is_known ? (unsigned)call.card->recovery : 0;
    }
    END(SUCCESS);
}

/* --- events --- */

int nvmlEventSetCreate(event_set_t **set) {
    BEGIN_WITHOUT_DEVICE("");
    *set = calloc(1, sizeof **set);
    (*set)->position = call.m->n_events;
    END(SUCCESS);
}

int nvmlEventSetFree(event_set_t *set) {
    BEGIN_WITHOUT_DEVICE("");
    free(set);
    END(SUCCESS);
}

int nvmlDeviceRegisterEvents(handle_t handle, u64 kinds, event_set_t *set) {
    BEGIN(handle);
    if (call.instance || !call.card->events || !(kinds & XID_EVENT)) END(NOT_SUPPORTED);
    if (!set || set->n == CARDS) END(INVALID_ARGUMENT);
    memcpy(set->cards[set->n++], handle->uuid, TEXT);
    END(SUCCESS);
}

static int is_registered(event_set_t *set, const char *uuid) {
    for (int i = 0; i < set->n; i++)
        if (!strcmp(set->cards[i], uuid)) return 1;
    return 0;
}

static int next_event(machine_t *m, event_set_t *set, event_data_t *data) {
    while (set->position < m->n_events) {
        event_t *event = &m->events[set->position++];
        if (!is_registered(set, event->card)) continue;
        *data = (event_data_t){ handle_of(event->card), XID_EVENT, (u64)event->xid, (unsigned)event->gi,
                                0xFFFFFFFF };
        return 1;
    }
    return 0;
}

int nvmlEventSetWait_v2(event_set_t *set, event_data_t *data, unsigned milliseconds) {
    for (unsigned waited = 0;; waited += 5) {
        BEGIN_WITHOUT_DEVICE("");
        if (!set) END(INVALID_ARGUMENT);
        if (next_event(call.m, set, data)) END(SUCCESS);
        if (waited >= milliseconds) END(TIMEOUT);
        leave(&call, SUCCESS);
        struct timespec pause = { 0, 5000000 };
        nanosleep(&pause, NULL);
    }
}
