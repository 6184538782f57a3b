/* Small blocks grow the break, one large block is mapped by itself, freeing gives both back. */
#include "../snapshot.h"
#include <stdlib.h>

int main(void)
{
    static char *small[2000];
    snapshot("start");
    for (int i = 0; i < 2000; i++) small[i] = malloc(500);
    char *large = malloc(3000000);
    snapshot("grown");
    large = realloc(large, 5000000);
    snapshot("moved");
    free(large);
    for (int i = 1999; i >= 0; i--) free(small[i]);
    snapshot("freed");
    return 0;
}
