/* The compiled reader of common JSON events; `worker.scanner` says what it is for.
 *
 * The rule: what a scanner takes, `schemas.event.parse_event` takes with the same result, bit for
 * bit. Where anything is unusual, the record is not taken, and the caller reads it another way.
 * `_number.h` reads numbers, `_event.h` an event; this file is what Python sees of them. */
#define PY_SSIZE_T_CLEAN
#include "_event.h"

typedef struct {
    PyObject_HEAD
    Layout layout;
    Py_ssize_t event_bytes_max;
    Py_ssize_t event_id_chars_max;
    Py_ssize_t group_chars_max;
} Scanner;

/* What is filled as records are scanned; `groups` is NULL where nobody asks for them. */
typedef struct {
    PyObject *values, *event_ids, *timestamps_ms, *groups;
} Lists;

/* What is made of one record, beside its row; owned, or NULL. */
typedef struct {
    PyObject *event_id, *timestamp, *group;
} Heads;

/* Return a new str, None where there is no text, or NULL: with an error set, or without one where
 * the text is not UTF-8 or too long. */
static PyObject *object_of_text(Text text, Py_ssize_t chars_max)
{
    if (text.bytes == 0) return Py_NewRef(Py_None);
    PyObject *string = PyUnicode_DecodeUTF8(text.start, text.bytes, NULL);
    if (string == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) PyErr_Clear();
    } else if (PyUnicode_GetLength(string) > chars_max) {
        Py_CLEAR(string);
    }
    return string;
}

/* Return 1 where the record is taken, 0 where it is not, -1 with an error set. */
static int scan_record(Scanner *self, PyObject *value, float *row, bool grouped, Heads *heads)
{
    Event event;
    Py_ssize_t bytes = PyBytes_Size(value);
    if (bytes > self->event_bytes_max) return 0;
    if (!read_event(PyBytes_AsString(value), bytes, row, &self->layout, &event)) return 0;
    heads->event_id = object_of_text(event.event_id, self->event_id_chars_max);
    if (heads->event_id == NULL) return PyErr_Occurred() ? -1 : 0;
    if (grouped) {
        heads->group = object_of_text(event.group, self->group_chars_max);
        if (heads->group == NULL) return PyErr_Occurred() ? -1 : 0;
    }
    if (event.time.start != NULL) {
        if (event.time.bytes == 0) return 0; /* An id may be empty, a time may not. */
        heads->timestamp = object_of_text(event.time, self->event_id_chars_max);
    } else if (event.timestamp_ms >= 0) {
        heads->timestamp = PyLong_FromLongLong(event.timestamp_ms);
    } else {
        heads->timestamp = Py_NewRef(Py_None);
    }
    if (heads->timestamp == NULL) return PyErr_Occurred() ? -1 : 0;
    return 1;
}

/* Put an object in its place; the list takes our reference, even if there is no such place. */
static bool put(PyObject *list, Py_ssize_t row, PyObject **object)
{
    PyObject *given = *object;
    *object = NULL;
    return PyList_SetItem(list, row, given) == 0;
}

/* Scan one record and put what is made of it in its places; return as `scan_record`. What the
 * lists held before may run any code as it goes, so each access asks whether the place is there. */
static int scan_row(Scanner *self, Py_ssize_t row, const Lists *lists, float *matrix)
{
    Heads heads = {NULL, NULL, NULL};
    PyObject *value = PyList_GetItem(lists->values, row);
    if (value == NULL) return -1;
    if (value == Py_None) return 0;
    if (!PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError, "value %zd is no bytes object and not None", row);
        return -1;
    }
    float *features = matrix + row * self->layout.width;
    int taken = scan_record(self, value, features, lists->groups != NULL, &heads);
    if (taken == 1
        && !(put(lists->event_ids, row, &heads.event_id)
             && put(lists->timestamps_ms, row, &heads.timestamp)
             && (heads.group == NULL || put(lists->groups, row, &heads.group)))) {
        taken = -1;
    }
    Py_XDECREF(heads.event_id);
    Py_XDECREF(heads.timestamp);
    Py_XDECREF(heads.group);
    return taken;
}

static bool check_sizes(const Scanner *self, const Lists *lists, const Py_buffer *matrix)
{
    Py_ssize_t count = PyList_Size(lists->values), width = self->layout.width;
    Py_ssize_t ids = PyList_Size(lists->event_ids), times = PyList_Size(lists->timestamps_ms);
    if (ids != count || times != count) {
        PyErr_Format(PyExc_ValueError, "%zd values, %zd ids and %zd times; wanted as many of each",
                     count, ids, times);
        return false;
    }
    if (lists->groups != NULL && PyList_Size(lists->groups) != count) {
        PyErr_Format(PyExc_ValueError, "%zd values and %zd groups; wanted as many of each", count,
                     PyList_Size(lists->groups));
        return false;
    }
    if (matrix->ndim != 2 || matrix->format == NULL || strcmp(matrix->format, "f") != 0
        || matrix->shape[0] != count || matrix->shape[1] != width) {
        PyErr_Format(PyExc_ValueError, "the matrix is not float32 of shape [%zd, %zd]", count,
                     width);
        return false;
    }
    return true;
}

static PyObject *Scanner_scan(Scanner *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"values", "matrix", "event_ids", "timestamps_ms", "groups", NULL};
    PyObject *matrix, *groups = Py_None, *untaken = NULL;
    Lists lists;
    Py_buffer view;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO!O!|O:scan", names, &PyList_Type,
                                     &lists.values, &matrix, &PyList_Type, &lists.event_ids,
                                     &PyList_Type, &lists.timestamps_ms, &groups)) {
        return NULL;
    }
    if (groups != Py_None && !PyList_Check(groups)) {
        PyErr_SetString(PyExc_TypeError, "the groups are no list and not None");
        return NULL;
    }
    lists.groups = groups == Py_None ? NULL : groups;
    if (PyObject_GetBuffer(matrix, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT) < 0) {
        return NULL;
    }
    if (check_sizes(self, &lists, &view)) untaken = PyList_New(0);
    for (Py_ssize_t row = 0; untaken != NULL && row < view.shape[0]; row++) {
        int taken = scan_row(self, row, &lists, view.buf);
        if (taken == 0) {
            PyObject *number = PyLong_FromSsize_t(row);
            taken = number == NULL ? -1 : PyList_Append(untaken, number);
            Py_XDECREF(number);
        }
        if (taken < 0) Py_CLEAR(untaken);
    }
    PyBuffer_Release(&view);
    return untaken;
}

/* Check that a node is part of a tree in which no read can go astray. */
static bool check_node(const Layout *layout, Py_ssize_t place)
{
    const Node *node = &layout->nodes[place];
    switch (node->kind) {
    case OBJECT:
    case FEATURES:
    case NAMED_FEATURES: /* Children stand further on, so that no object is within itself. */
        return node->place > place && node->place < layout->node_count && node->count >= 1
               && node->count <= layout->node_count - node->place;
    case FEATURE:
        return place > 0 && node->place >= 0 && node->place < layout->width;
    case EVENT_ID:
    case TIME_MS:
    case TIME_S:
    case TIME_TEXT:
    case GROUP:
        return place > 0;
    }
    return false;
}

static bool set_node(Layout *layout, Py_ssize_t place, PyObject *item)
{
    Node *node = &layout->nodes[place];
    PyObject *key;
    int kind;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a node is a tuple of key, kind, place and count");
        return false;
    }
    if (!PyArg_ParseTuple(item, "Sinn", &key, &kind, &node->place, &node->count)) return false;
    node->key = Py_NewRef(key);
    node->text = PyBytes_AsString(key);
    node->bytes = PyBytes_Size(key);
    node->kind = (enum kind)kind;
    node->first_seen = node->place;
    node->next_seen = place;
    if (!check_node(layout, place)) {
        PyErr_Format(PyExc_ValueError, "node %zd does not belong in a tree of keys", place);
        return false;
    }
    return true;
}

static PyObject *Scanner_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "nodes",
        "width",
        "event_bytes_max",
        "event_id_chars_max",
        "group_chars_max",
        "timestamp_ms_max",
        NULL,
    };
    PyObject *nodes;
    Py_ssize_t width, event_bytes_max, event_id_chars_max, group_chars_max;
    long long timestamp_ms_max;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!n$nnnL:Scanner", names, &PyTuple_Type, &nodes,
                                     &width, &event_bytes_max, &event_id_chars_max,
                                     &group_chars_max, &timestamp_ms_max)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(nodes);
    if (count < 1 || width < 1) {
        PyErr_SetString(PyExc_ValueError, "a scanner wants at least one node and one feature");
        return NULL;
    }
    Scanner *self = (Scanner *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->event_bytes_max = event_bytes_max;
    self->event_id_chars_max = event_id_chars_max;
    self->group_chars_max = group_chars_max;
    Layout *layout = &self->layout;
    *layout = (Layout){.width = width, .timestamp_ms_max = timestamp_ms_max};
    layout->nodes = PyMem_Calloc((size_t)count, sizeof(Node));
    if (layout->nodes == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    layout->node_count = count;
    for (Py_ssize_t place = 0; place < count; place++) {
        if (!set_node(layout, place, PyTuple_GetItem(nodes, place))) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static void Scanner_dealloc(Scanner *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t place = 0; place < self->layout.node_count; place++) {
        Py_XDECREF(self->layout.nodes[place].key);
    }
    PyMem_Free(self->layout.nodes);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef Scanner_methods[] = {
    {"scan", (PyCFunction)(void (*)(void))Scanner_scan, METH_VARARGS | METH_KEYWORDS,
     "Scan records into rows; return the rows not taken, ascending."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Scanner_slots[] = {
    {Py_tp_doc, "Reads the common events of one layout."},
    {Py_tp_new, Scanner_new},
    {Py_tp_dealloc, Scanner_dealloc},
    {Py_tp_methods, Scanner_methods},
    {0, NULL},
};

static PyType_Spec Scanner_spec = {
    .name = "worker._scanner.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Scanner_slots,
};

static int module_exec(PyObject *module)
{
    if (PyModule_AddIntMacro(module, OBJECT) < 0 || PyModule_AddIntMacro(module, FEATURES) < 0
        || PyModule_AddIntMacro(module, NAMED_FEATURES) < 0
        || PyModule_AddIntMacro(module, FEATURE) < 0 || PyModule_AddIntMacro(module, EVENT_ID) < 0
        || PyModule_AddIntMacro(module, TIME_MS) < 0 || PyModule_AddIntMacro(module, TIME_S) < 0
        || PyModule_AddIntMacro(module, TIME_TEXT) < 0 || PyModule_AddIntMacro(module, GROUP) < 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &Scanner_spec, NULL);
    int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return added;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "worker._scanner",
    .m_doc = "The compiled reader of common JSON events.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__scanner(void)
{
    return PyModuleDef_Init(&module_definition);
}
