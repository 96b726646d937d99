/* A PKCS#11 module that passes every call on to another one, and fails when it is told to.
 *
 * FAULT_MODULE   the module behind it
 * FAULT_CONTROL  a file, read again whenever it was replaced, with one fault a line:
 *                    C_Encrypt segv every 500      segv abort exit hang busy, or the value to return, as 0x30
 *                    C_Encrypt 0x30 first 2
 *                    C_Sign 0x30                   always
 *                    C_GenerateKey 0x05 overlapped if another call was made to the module meanwhile
 *                    token removed                 every session ends, and there is no token until the file changes
 *                    gcm writes-iv                 AES-GCM with an IV that the device makes and writes into pIv
 *                    gcm appends-iv                the same, but the 16 bytes of IV come after the tag
 *                Calls are counted by process, from the moment of the change.
 * FAULT_LOG      a file to which the name of each C_Initialize, C_Finalize and C_Login is appended
 *
 * All functions of Cryptoki 2.40 take at most eight arguments of a register's size, so one signature does for all.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long W;
typedef W (*FN)(W, W, W, W, W, W, W, W);
typedef struct { unsigned char major, minor; FN fn[68]; } LIST;

static const char *const NAMES[68] = {
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo",
    "C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN",
    "C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState",
    "C_SetOperationState", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject", "C_DestroyObject",
    "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
    "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit",
    "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest", "C_DigestUpdate",
    "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal",
    "C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal",
    "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate", "C_DecryptDigestUpdate",
    "C_SignEncryptUpdate", "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey",
    "C_UnwrapKey", "C_DeriveKey", "C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus",
    "C_CancelFunction", "C_WaitForSlotEvent",
};
enum { INITIALIZE = 0, FINALIZE = 1, GET_SLOT_INFO = 5, GET_TOKEN_INFO = 6, OPEN_SESSION = 12,
       CLOSE_ALL_SESSIONS = 14, LOGIN = 18, ENCRYPT_INIT = 29, ENCRYPT = 30 };
enum { TOKEN_NOT_PRESENT = 0xE0, DEVICE_REMOVED = 0x32, AES_GCM = 0x1087, APPENDED = 16 };

typedef struct { char what[32]; int every, overlapped; W first, calls; } FAULT;
typedef struct { W type, param, bytes; } MECHANISM;
typedef struct { unsigned char *iv; W iv_bytes, iv_bits; void *bound; W bound_bytes, tag_bits; } GCM;

static LIST list, *real;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FAULT faults[68];
static int removed, writes_iv, appends_iv;
static W inside, entered; /* calls that are in the module now; that ever were */
static struct timespec read_at;
static ino_t read_ino;
static W slots[16], slot_count;
static __thread unsigned char appended[APPENDED];

static void end_sessions(void) {
    for (W i = 0; i < slot_count; i++)
        real->fn[CLOSE_ALL_SESSIONS](slots[i], 0, 0, 0, 0, 0, 0, 0);
    slot_count = 0;
}

static void read_control(void) {
    const char *path = getenv("FAULT_CONTROL");
    struct stat now;
    if (path == NULL || stat(path, &now) != 0)
        return;
    if (now.st_ino == read_ino && now.st_mtim.tv_sec == read_at.tv_sec && now.st_mtim.tv_nsec == read_at.tv_nsec)
        return;
    read_ino = now.st_ino;
    read_at = now.st_mtim;
    memset(faults, 0, sizeof faults);
    removed = writes_iv = appends_iv = 0;
    FILE *file = fopen(path, "re");
    char line[256], name[64], what[32], when[16];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        W number = 0;
        when[0] = 0;
        if (sscanf(line, "%63s %31s %15s %lu", name, what, when, &number) < 2)
            continue;
        removed |= !strcmp(name, "token") && !strcmp(what, "removed");
        writes_iv |= !strcmp(name, "gcm") && !strcmp(what, "writes-iv");
        appends_iv |= !strcmp(name, "gcm") && !strcmp(what, "appends-iv");
        for (int i = 0; i < 68; i++)
            if (!strcmp(name, NAMES[i])) {
                strcpy(faults[i].what, what);
                faults[i].every = !strcmp(when, "every");
                faults[i].overlapped = !strcmp(when, "overlapped");
                faults[i].first = number;
            }
    }
    if (file != NULL)
        fclose(file);
    if (removed)
        end_sessions();
}

static void note(int n) {
    const char *path = getenv("FAULT_LOG");
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        dprintf(fd, "%s\n", NAMES[n]);
        close(fd);
    }
}

/* Returns the value to answer with, or 0: the call is passed on. */
static W fault(int n) {
    char what[32];
    pthread_mutex_lock(&lock);
    read_control();
    FAULT *found = &faults[n];
    found->calls++;
    int due = found->what[0] != 0 && !found->overlapped &&
              (found->first == 0 || (found->every ? found->calls % found->first == 0 : found->calls <= found->first));
    strcpy(what, due ? found->what : "");
    W gone = removed && n >= GET_TOKEN_INFO ? (n == GET_TOKEN_INFO || n == OPEN_SESSION ? TOKEN_NOT_PRESENT : DEVICE_REMOVED) : 0;
    pthread_mutex_unlock(&lock);
    if (gone)
        return gone;
    if (!strcmp(what, "segv"))
        *(volatile int *)0 = 1;
    if (!strcmp(what, "abort"))
        abort();
    if (!strcmp(what, "exit"))
        _exit(3);
    if (!strcmp(what, "hang"))
        for (;;)
            pause();
    if (!strcmp(what, "busy"))
        for (volatile W i = 0;; i++)
            ;
    return what[0] == '0' ? strtoul(what, NULL, 16) : 0;
}

static W encrypt_init(W session, MECHANISM *mechanism, W key) {
    MECHANISM own = *mechanism;
    GCM parameters;
    if (mechanism->type == AES_GCM && (writes_iv || appends_iv)) {
        memcpy(&parameters, (void *)mechanism->param, sizeof parameters);
        if (writes_iv && getrandom(parameters.iv, parameters.iv_bytes, 0) < 0)
            return 5;
        if (appends_iv) {
            if (parameters.iv_bytes != 0 || getrandom(appended, APPENDED, 0) < 0)
                return 0x71;
            parameters.iv = appended;
            parameters.iv_bytes = APPENDED;
            parameters.iv_bits = 8 * APPENDED;
        }
        own.param = (W)&parameters;
    }
    return real->fn[ENCRYPT_INIT](session, (W)&own, key, 0, 0, 0, 0, 0);
}

static W encrypt(W session, W data, W bytes, unsigned char *out, W *out_bytes) {
    W room = *out_bytes;
    W value = real->fn[ENCRYPT](session, data, bytes, (W)out, (W)out_bytes, 0, 0, 0);
    if (value == 0 && appends_iv) {
        if (out != NULL && room < *out_bytes + APPENDED)
            return 0x150;
        if (out != NULL)
            memcpy(out + *out_bytes, appended, APPENDED);
        *out_bytes += APPENDED;
    }
    return value;
}

static W watched(int n, W a, W b, W c, W d, W e, W f, W g, W h) {
    pthread_mutex_lock(&lock);
    W before = ++entered, others = inside++;
    pthread_mutex_unlock(&lock);
    W value = real->fn[n](a, b, c, d, e, f, g, h);
    pthread_mutex_lock(&lock);
    inside--;
    if (faults[n].overlapped && (others || entered != before))
        value = strtoul(faults[n].what, NULL, 16);
    pthread_mutex_unlock(&lock);
    return value;
}

static W pass(int n, W a, W b, W c, W d, W e, W f, W g, W h) {
    if (n == INITIALIZE || n == FINALIZE || n == LOGIN)
        note(n);
    W value = fault(n);
    if (value != 0)
        return value;
    if (n == ENCRYPT_INIT)
        return encrypt_init(a, (MECHANISM *)b, c);
    if (n == ENCRYPT)
        return encrypt(a, b, c, (unsigned char *)d, (W *)e);
    value = watched(n, a, b, c, d, e, f, g, h);
    if (n == OPEN_SESSION && value == 0) {
        pthread_mutex_lock(&lock);
        W i = 0;
        while (i < slot_count && slots[i] != a)
            i++;
        if (i == slot_count && slot_count < 16)
            slots[slot_count++] = a;
        pthread_mutex_unlock(&lock);
    }
    return value;
}

#define W1(n) static W w##n(W a, W b, W c, W d, W e, W f, W g, W h) { return pass(n, a, b, c, d, e, f, g, h); }
#define EACH(X) \
    X(0) X(1) X(2) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) \
    X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31) X(32) X(33) X(34) X(35) X(36) X(37) \
    X(38) X(39) X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47) X(48) X(49) X(50) X(51) X(52) X(53) X(54) X(55) \
    X(56) X(57) X(58) X(59) X(60) X(61) X(62) X(63) X(64) X(65) X(66) X(67)
EACH(W1)

W C_GetFunctionList(LIST **out) {
    if (real == NULL) {
        const char *path = getenv("FAULT_MODULE");
        void *module = path != NULL ? dlopen(path, RTLD_NOW) : NULL;
        W (*get)(LIST **) = module != NULL ? (W (*)(LIST **))dlsym(module, "C_GetFunctionList") : NULL;
        if (get == NULL || get(&real) != 0)
            return 5;
        list = *real;
#define SET(n) list.fn[n] = w##n;
        EACH(SET)
        list.fn[3] = (FN)C_GetFunctionList;
    }
    *out = &list;
    return 0;
}
