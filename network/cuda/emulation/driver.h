// What an emulated card is made of.

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

// CUDA's numbers.
enum Code {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};
const int SHARED = 227 << 10, SHARED_UNASKED = 48 << 10;
const int64_t AROUND = 1024; // bytes around each buffer, and what they hold: as floats not numbers
const unsigned char NOTHING = 0xff;

// What no card is known to answer.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void undefined(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("emulated driver: ", stderr);
    vfprintf(stderr, format, rest);
    fputs("\n", stderr);
    abort();
}

inline uint64_t number(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value && *value ? strtoull(value, nullptr, 10) : otherwise;
}

typedef int Start(const unsigned *, const unsigned *, unsigned, void **, unsigned, bool);
typedef unsigned Save(void **, uint64_t *);

struct Function {
    std::string name;
    Start *start;
    Save *save;
    int shared = SHARED_UNASKED;
    bool loaded = true;
};

// Never deleted: fibers have stacks in its library.
struct Module {
    void *library;
    std::map<std::string, Function> functions;
};

struct Launch {
    Function *function;
    unsigned grid[3], block[3], shared;
    std::vector<uint64_t> cells;
};

typedef std::vector<Launch> Graph;

struct Stream {
    std::vector<std::function<void()>> work;
    bool captures = false, spoilt = false;
    std::thread::id capturer;
    Graph captured;
};

// A card's primary context.
struct Context {
    int users = 0;
    bool lost = false;
    uint64_t used = 0;
    std::map<uint64_t, uint64_t> buffers; // their lengths, by where they begin
    std::set<void *> pinned, events;
    std::set<Stream *> streams;
    std::set<Module *> modules;
    std::set<Graph *> graphs, executables;

    bool is_empty() const {
        return buffers.empty() && pinned.empty() && events.empty() && streams.empty() && modules.empty() &&
               graphs.empty() && executables.empty();
    }
};
