/* A JSON number as the float nearest to its nearest double: what Python makes of it, and then
 * NumPy. Most numbers take the quick way, which knows when it may be wrong; those few take
 * Python's own. */
#ifndef ODRADEK_NUMBER_H
#define ODRADEK_NUMBER_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A double of this size or larger rounds to no finite float: (2 - 2^-24) * 2^127. */
#define FLOAT32_LIMIT 0x1.ffffffp127

/* mantissa * 10^exponent, without the sign. */
typedef struct {
    const char *start; /* Its first digit. */
    const char *end;
    uint64_t mantissa; /* Right where `digits` is at most 18; else it may have wrapped around. */
    Py_ssize_t digits;
    int64_t exponent;
    bool negative;
    bool integer;
} Number;

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline const char *read_digits(const char *p, uint64_t *mantissa)
{
    for (; is_digit(*p); p++) *mantissa = *mantissa * 10 + (uint64_t)(*p - '0');
    return p;
}

static inline const char *read_exponent(const char *p, int64_t *exponent)
{
    bool down = *p == '-';
    if (down || *p == '+') p++;
    const char *start = p;
    int64_t power = 0;
    for (; is_digit(*p); p++) {
        /* From here on it only matters that it outweighs all digits that an event can hold. */
        if (power < 1000000000) power = power * 10 + (*p - '0');
    }
    *exponent += down ? -power : power;
    return p == start ? NULL : p;
}

static inline const char *read_number(const char *p, Number *number)
{
    uint64_t mantissa = 0;
    number->negative = *p == '-';
    if (number->negative) p++;
    number->start = p;
    p = read_digits(p, &mantissa);
    number->digits = p - number->start;
    if (number->digits == 0 || (*number->start == '0' && number->digits > 1)) return NULL;
    number->exponent = 0;
    number->integer = true;
    if (*p == '.') {
        const char *fraction = p + 1;
        p = read_digits(fraction, &mantissa);
        if (p == fraction) return NULL;
        number->digits += p - fraction;
        number->exponent = fraction - p;
        number->integer = false;
    }
    if (*p == 'e' || *p == 'E') {
        p = read_exponent(p + 1, &number->exponent);
        number->integer = false;
    }
    if (number->digits > 18) { /* Those that lead with zeros may be fewer in truth. */
        for (const char *q = number->start; *q == '0' || *q == '.'; q++) {
            if (*q == '0') number->digits--;
        }
    }
    number->mantissa = mantissa;
    number->end = p;
    return p;
}

/* Set `value` to the number's size, and return whether it is the nearest double. If it is not, it
 * is within 4 units of the last place of it, or 0 where nothing is known. */
static inline bool quick_double(const Number *number, double *value)
{
    /* The powers of ten that a double holds exactly. */
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int64_t power = number->exponent;
    *value = 0.0;
    if (number->digits > 18 || power < -66 || power > 66) return false;
    double quick = (double)(int64_t)number->mantissa;
    /* One operation on two exact doubles gives the nearest (Clinger, 1990). */
    bool nearest = number->mantissa <= UINT64_C(1) << 53 && power >= -22 && power <= 22;
    for (; power < -22; power += 22) quick /= 1e22;
    for (; power > 22; power -= 22) quick *= 1e22;
    *value = power < 0 ? quick / powers[-power] : quick * powers[power];
    return nearest;
}

/* Set `value` to the nearest double to the number's size; return whether that could be done. */
static bool exact_double(const Number *number, double *value)
{
    char *stop;
    *value = PyOS_string_to_double(number->start, &stop, NULL);
    if (*value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    return stop == number->end;
}

/* Whether all doubles within 16 units of the last place of `value` round to the same float. */
static inline bool rounds_safely(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    /* A float drops a double's last 29 bits and rounds at their half. One below 1.18e-38 drops
     * more. */
    return value > 1.2e-38 && (bits & 0x1fffffff) - (0x10000000 - 16) > 32;
}

static inline bool nearest_double(const Number *number, double *value)
{
    return quick_double(number, value) || exact_double(number, value);
}

/* Set `value` to the number as a float; return false where none is large enough. */
static inline bool nearest_float(const Number *number, float *value)
{
    double size;
    if (!quick_double(number, &size) && !rounds_safely(size) && !exact_double(number, &size)) {
        return false;
    }
    if (!(size < FLOAT32_LIMIT)) return false;
    /* JSON's -0 is an integer to Python, which has but one zero; -0.0 is not. */
    bool negative = number->negative && !(number->integer && size == 0.0);
    *value = (float)(negative ? -size : size);
    return true;
}

#endif
