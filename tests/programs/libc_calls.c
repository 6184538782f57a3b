/* Functions of libc that call malloc for themselves, each between two questions that the log shows; their names are
 * printed. */
#define _GNU_SOURCE
#include <argz.h>
#include <dirent.h>
#include <glob.h>
#include <iconv.h>
#include <locale.h>
#include <malloc.h>
#include <regex.h>
#include <search.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

static int compare(const void *a, const void *b) { return memcmp(a, b, 4); }
static char *mark, *line, *text;
static size_t length;
static int numbers[20000];

#define CALL(name, call) malloc_usable_size(mark); call; puts(#name)

int main(void)
{
    static char out[1 << 16];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    mark = malloc(100);
    FILE *file = tmpfile();
    regex_t regex;
    glob_t found;
    struct dirent **entries;
    void *tree = NULL;
    struct hsearch_data table = {0};
    posix_spawn_file_actions_t actions;
    CALL(strdup, strdup("text"));
    CALL(strndup, strndup("text", 2));
    CALL(wcsdup, wcsdup(L"text"));
    CALL(asprintf, asprintf(&text, "%d", 4));
    CALL(fopen, fopen("/dev/null", "r"));
    CALL(fdopen, fdopen(dup(0), "r"));
    CALL(fprintf, fprintf(file, "one line\n"); rewind(file));
    CALL(getline, getline(&line, &length, file));
    CALL(open_memstream, open_memstream(&text, &length));
    CALL(fmemopen, fmemopen(NULL, 100, "w"));
    CALL(opendir, opendir("/"));
    CALL(scandir, scandir("/", &entries, NULL, alphasort));
    CALL(setlocale, setlocale(LC_ALL, "C.UTF-8"));
    CALL(qsort, qsort(numbers, 20000, sizeof *numbers, compare));
    CALL(realpath, realpath("/", NULL));
    CALL(getcwd, getcwd(NULL, 0));
    CALL(regcomp, regcomp(&regex, "a*b", 0));
    CALL(glob, glob("/*", 0, NULL, &found));
    CALL(tsearch, tsearch("key", &tree, compare));
    CALL(hcreate_r, hcreate_r(30, &table));
    CALL(setenv, setenv("NAME", "text", 1));
    CALL(argz_create_sep, argz_create_sep("a:b", ':', &text, &length));
    CALL(spawn_actions, posix_spawn_file_actions_init(&actions); posix_spawn_file_actions_adddup2(&actions, 0, 3));
    malloc_usable_size(mark);
    return 0;
}
