/* A PLC that only serves Modbus, written with libmodbus against deploy/register_map.md alone.
 *
 *     plc_server PORT RUN FIRST_PART LAST_PART LOGFILE
 *
 * Keeps the registers 0..55 at 0 and 100..148 at 100.  Its program runs between two telegrams, as between the scans of a
 * PLC.  The log is that of plc_client.c.  After the last part it goes on serving until it is killed.
 */
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

enum { REGISTERS = 200, READY = 103, BUSY = 104, ACKNOWLEDGE = 41, TRIGGER = 42, VALID = 132, TRIGGER_SEEN = 148 };
enum { IDLE, PRESENTED, AGAIN, ACKNOWLEDGED };

static uint16_t *r;
static uint32_t run, part, last;
static int step = IDLE;
static double began_us;
static FILE *journal;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static uint32_t at32(int address) { return (uint32_t)r[address] << 16 | r[address + 1]; }

static int is_mine(void) { return r[VALID] == 1 && at32(114) == run && at32(116) == part; }

static void describe(void)
{
    char serial[33] = {0};
    snprintf(serial, sizeof serial, "SN-%06u", part);
    r[0] = run >> 16, r[1] = run, r[2] = part >> 16, r[3] = part;
    for (int i = 0; i < 16; i++)
        r[4 + i] = (uint8_t)serial[2 * i] << 8 | (uint8_t)serial[2 * i + 1];
    r[ACKNOWLEDGE] = 0;
    r[TRIGGER] = 1;
}

/* One pass of the PLC's program. */
static void scan(void)
{
    r[40]++;
    if (step == IDLE && part <= last && r[READY] && !r[TRIGGER_SEEN]) {
        describe();
        began_us = now_us();
        step = PRESENTED;
    } else if (step == PRESENTED && is_mine()) {
        fprintf(journal, "%u %u %u %u %u %u %.0f\n", part, run, r[118], r[120], r[121], r[122], now_us() - began_us);
        fflush(journal);
        r[ACKNOWLEDGE] = 1;
        r[TRIGGER] = 0;
        step = ACKNOWLEDGED;
    } else if (step == PRESENTED && r[READY] && !r[BUSY] && r[TRIGGER_SEEN]) {
        r[TRIGGER] = 0; /* refused, or the station restarted */
        step = AGAIN;
    } else if (step == AGAIN && r[READY] && !r[TRIGGER_SEEN]) {
        r[TRIGGER] = 1;
        step = PRESENTED;
    } else if (step == ACKNOWLEDGED && !r[VALID]) {
        r[ACKNOWLEDGE] = 0;
        part++;
        step = IDLE;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    modbus_t *link = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *map = modbus_mapping_new(0, 0, REGISTERS, 0);
    journal = fopen(argv[5], "a");
    int listener = link ? modbus_tcp_listen(link, 8) : -1, highest = listener;
    if (listener < 0 || !map || !journal)
        return 2;
    r = map->tab_registers;
    run = strtoul(argv[2], NULL, 10), part = strtoul(argv[3], NULL, 10), last = strtoul(argv[4], NULL, 10);
    fd_set open_ones;
    FD_ZERO(&open_ones);
    FD_SET(listener, &open_ones);
    for (;;) {
        fd_set ready = open_ones;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0)
            return 1;
        for (int one = 0; one <= highest; one++) {
            if (!FD_ISSET(one, &ready))
                continue;
            if (one == listener) {
                int fresh = modbus_tcp_accept(link, &listener);
                if (fresh < 0)
                    return 1;
                highest = fresh > highest ? fresh : highest;
                FD_SET(fresh, &open_ones);
                continue;
            }
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(link, one);
            int length = modbus_receive(link, query);
            if (length > 0)
                modbus_reply(link, query, length, map);
            else if (length < 0) {
                close(one);
                FD_CLR(one, &open_ones);
            }
            scan();
        }
    }
}
