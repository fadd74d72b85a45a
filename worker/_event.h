/* Reading one event of a layout from its JSON.
 *
 * One pass, and no object is made. Each `read_` and `skip_` function takes the place where
 * something starts and returns the place after it, or NULL where the record is not to be taken.
 * They check no bounds byte by byte: a bytes object has a NUL after its last byte, nothing in JSON
 * may hold a NUL, and so each loop stops there at the latest. Whether that NUL was the end,
 * `read_event` asks last. */
#ifndef ODRADEK_EVENT_H
#define ODRADEK_EVENT_H

#include "_number.h"

#include <math.h>

/* Of layouts and of what is skipped. Python reads deeper. */
#define DEPTH_MAX 64

enum kind {
    OBJECT,
    FEATURES,
    NAMED_FEATURES,
    FEATURE,
    EVENT_ID,
    TIME_MS,
    TIME_S,
    TIME_TEXT,
    GROUP,
};

/* A key that the layout knows, and what stands there. */
typedef struct {
    PyObject *key; /* Bytes; owned. */
    const char *text;
    Py_ssize_t bytes;
    enum kind kind;
    Py_ssize_t place;      /* A feature's column, or an object's first child. */
    Py_ssize_t count;      /* An object's children: neighbours, by length and then by bytes. */
    Py_ssize_t first_seen; /* The child that came first the last time, and ... */
    Py_ssize_t next_seen;  /* ... the sibling that came next: most events repeat the order. */
    uint64_t last_event;   /* The number of the last event that had this key. */
} Node;

typedef struct {
    Node *nodes; /* The first is the event itself. */
    Py_ssize_t node_count;
    Py_ssize_t width;
    int64_t timestamp_ms_max;
    uint64_t event; /* The number of the event being read. */
} Layout;

/* Without its quotes; `start` is NULL where there is none. */
typedef struct {
    const char *start;
    Py_ssize_t bytes;
} Text;

/* What has been read of an event so far. */
typedef struct {
    Layout *layout;
    const char *end;
    float *row;
    bool has_features;
    Text event_id;
    Text group;
    Text time;            /* Of TIME_TEXT. */
    int64_t timestamp_ms; /* Of the others; -1 where there is none. */
} Event;

static inline const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return p;
}

static inline const char *skip_word(const char *p, const char *word)
{
    for (; *word != '\0'; word++, p++) {
        if (*p != *word) return NULL;
    }
    return p;
}

/* Pass the colon between a key and its value. */
static inline const char *skip_colon(const char *p)
{
    p = skip_space(p);
    return *p == ':' ? skip_space(p + 1) : NULL;
}

/* Skip a string, from after its opening quote. */
static const char *skip_string(const char *p)
{
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p != '\\') continue;
        p++;
        if (*p == '\0' || strchr("\"\\/bfnrtu", *p) == NULL) return NULL;
        if (*p != 'u') continue;
        for (int place = 0; place < 4; place++) {
            p++;
            if (!Py_ISXDIGIT(Py_CHARMASK(*p))) return NULL;
        }
    }
    return p + 1;
}

/* Skip any JSON value, checked as strictly as one that is read. */
static const char *skip_value(const char *p, int depth)
{
    Number number;
    if (*p == '"') return skip_string(p + 1);
    if (*p == 'n') return skip_word(p, "null");
    if (*p == 't') return skip_word(p, "true");
    if (*p == 'f') return skip_word(p, "false");
    if (*p != '[' && *p != '{') return read_number(p, &number);
    if (depth == DEPTH_MAX) return NULL;
    bool named = *p == '{';
    char close = named ? '}' : ']';
    p = skip_space(p + 1);
    if (*p == close) return p + 1;
    for (;; p = skip_space(p + 1)) {
        if (named) {
            p = *p == '"' ? skip_string(p + 1) : NULL;
            if (p == NULL || (p = skip_colon(p)) == NULL) return NULL;
        }
        p = skip_value(p, depth + 1);
        if (p == NULL) return NULL;
        p = skip_space(p);
        if (*p == close) return p + 1;
        if (*p != ',') return NULL;
    }
}

/* Read a string that has no escapes, from after its opening quote. */
static inline const char *read_text(const char *p, Text *text)
{
    text->start = p;
    while ((unsigned char)*p >= 0x20 && *p != '"' && *p != '\\') p++;
    text->bytes = p - text->start;
    return *p == '"' ? p + 1 : NULL;
}

static inline const char *read_feature(const char *p, float *feature)
{
    Number number;
    if (*p == 'n') {
        *feature = NAN;
        return skip_word(p, "null");
    }
    p = read_number(p, &number);
    return p != NULL && nearest_float(&number, feature) ? p : NULL;
}

/* Read a string or an integer as its text: an event's id, or its group. */
static const char *read_name(const char *p, Text *name)
{
    Number number;
    if (*p == '"') return read_text(p + 1, name);
    if (*p == 'n') return skip_word(p, "null");
    name->start = p;
    p = read_number(p, &number);
    if (p == NULL || !number.integer || number.digits > 18) return NULL;
    if (number.negative && number.mantissa == 0) return NULL; /* Python would write -0 as 0. */
    name->bytes = p - name->start;
    return p;
}

static const char *read_time(const char *p, enum kind kind, Event *event)
{
    Number number;
    double value;
    if (*p == 'n') return skip_word(p, "null");
    if (kind == TIME_TEXT) return *p == '"' ? read_text(p + 1, &event->time) : NULL;
    p = read_number(p, &number);
    if (p == NULL || number.negative || !nearest_double(&number, &value)) return NULL;
    if (kind == TIME_S) value *= 1000.0;
    if (!(value < 9e15)) return NULL; /* 2^53: below it, the next three lines are exact. */
    int64_t whole = (int64_t)value;
    double rest = value - (double)whole;
    whole += rest > 0.5 || (rest == 0.5 && whole % 2 == 1); /* Halves to even, as in Python. */
    event->timestamp_ms = whole;
    return whole <= event->layout->timestamp_ms_max ? p : NULL;
}

static const char *read_array(const char *p, float *row, Py_ssize_t width)
{
    p = skip_space(p + 1);
    for (Py_ssize_t column = 0; column < width; column++) {
        p = read_feature(p, row + column);
        if (p == NULL) return NULL;
        p = skip_space(p);
        if (*p != (column < width - 1 ? ',' : ']')) return NULL;
        p = skip_space(p + 1);
    }
    return p;
}

static Node *find_child(Node *nodes, const Node *parent, Text key)
{
    Py_ssize_t low = parent->place, high = low + parent->count;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        Node *node = &nodes[middle];
        Py_ssize_t order = key.bytes - node->bytes;
        if (order == 0) order = memcmp(key.start, node->text, (size_t)key.bytes);
        if (order == 0) return node;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* Read a key from after its opening quote; set `node` to NULL where the layout does not know it. */
static inline const char *read_key(const char *p, Event *event, const Node *parent,
                                   Py_ssize_t expected, Node **node)
{
    Node *nodes = event->layout->nodes;
    Node *guess = *node = &nodes[expected];
    /* No key of a layout holds a quote, or anything that would have to be escaped. */
    if (event->end - p > guess->bytes && p[guess->bytes] == '"'
        && memcmp(p, guess->text, (size_t)guess->bytes) == 0) {
        return p + guess->bytes + 1;
    }
    Text key;
    p = read_text(p, &key);
    if (p != NULL) *node = find_child(nodes, parent, key);
    return p;
}

static const char *read_node(const char *p, Event *event, Node *node, int depth);

static const char *read_object(const char *p, Event *event, Node *parent, int depth)
{
    if (*p != '{' || depth == DEPTH_MAX) return NULL;
    p = skip_space(p + 1);
    if (*p == '}') return p + 1;
    Py_ssize_t *expected = &parent->first_seen;
    for (;; p = skip_space(p + 1)) {
        Node *node;
        if (*p != '"') return NULL;
        p = read_key(p + 1, event, parent, *expected, &node);
        if (p == NULL || (p = skip_colon(p)) == NULL) return NULL;
        if (node == NULL) {
            p = skip_value(p, depth + 1);
        } else {
            /* Of two values the last one counts, but the row has something of the first. */
            if (node->last_event == event->layout->event) return NULL;
            node->last_event = event->layout->event;
            *expected = node - event->layout->nodes;
            expected = &node->next_seen;
            p = read_node(p, event, node, depth + 1);
        }
        if (p == NULL) return NULL;
        p = skip_space(p);
        if (*p == '}') return p + 1;
        if (*p != ',') return NULL;
    }
}

static const char *read_node(const char *p, Event *event, Node *node, int depth)
{
    Py_ssize_t width = event->layout->width;
    switch (node->kind) {
    case FEATURE:
        return read_feature(p, event->row + node->place);
    case EVENT_ID:
        return read_name(p, &event->event_id);
    case GROUP:
        return read_name(p, &event->group);
    case TIME_MS:
    case TIME_S:
    case TIME_TEXT:
        return read_time(p, node->kind, event);
    case OBJECT: /* Null is as good as absent, but not for the features. */
        return *p == 'n' ? skip_word(p, "null") : read_object(p, event, node, depth);
    case FEATURES:
    case NAMED_FEATURES:
        event->has_features = true;
        if (*p == '[' && node->kind == FEATURES) return read_array(p, event->row, width);
        for (Py_ssize_t column = 0; column < width; column++) event->row[column] = NAN;
        return read_object(p, event, node, depth);
    }
    Py_UNREACHABLE();
}

/* Read an event, all but the encoding of its texts; return whether it is to be taken. */
static bool read_event(const char *start, Py_ssize_t bytes, float *row, Layout *layout,
                       Event *event)
{
    *event = (Event){.layout = layout, .end = start + bytes, .row = row, .timestamp_ms = -1};
    layout->event++;
    const char *p = skip_space(start);
    if (*p != '{') return false;
    p = read_node(p, event, layout->nodes, 0);
    return p != NULL && skip_space(p) == event->end && event->has_features;
}

#endif
