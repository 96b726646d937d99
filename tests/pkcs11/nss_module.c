/* NSS softokn as a module that any PKCS#11 client can load.
 *
 * It wants to be told its database in C_Initialize, in a member of CK_C_INITIALIZE_ARGS that is its own
 * (LibraryParameters, where the standard has pReserved). NSS_MODULE_PARAMETERS holds that text, NSS_MODULE the library.
 */

#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long CK_RV;
typedef struct {
    void *create, *destroy, *lock, *unlock;
    unsigned long flags;
    const char *library_parameters;
    void *reserved;
} NSS_ARGS;
typedef struct { unsigned char major, minor; void *fn[68]; } LIST;

static LIST list, *real;

static CK_RV initialize(void *given) {
    (void)given;
    NSS_ARGS args = {0};
    args.flags = 2; /* CKF_OS_LOCKING_OK */
    args.library_parameters = getenv("NSS_MODULE_PARAMETERS");
    return ((CK_RV(*)(void *))real->fn[0])(&args);
}

CK_RV C_GetFunctionList(LIST **out) {
    if (real == NULL) {
        const char *path = getenv("NSS_MODULE");
        void *module = path != NULL ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
        CK_RV (*get)(LIST **) = module != NULL ? (CK_RV(*)(LIST **))dlsym(module, "C_GetFunctionList") : NULL;
        if (get == NULL || get(&real) != 0)
            return 5;
        list = *real;
        list.fn[0] = (void *)initialize;
    }
    *out = &list;
    return 0;
}
