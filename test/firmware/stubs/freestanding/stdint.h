/* The compiler's own types: no C library is installed for the target. */
#include <stdint-gcc.h>
