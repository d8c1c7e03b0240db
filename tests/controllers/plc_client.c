/* A PLC that is a Modbus client, written with libmodbus against deploy/register_map.md alone.
 *
 *     plc_client PORT RUN FIRST_PART LAST_PART LOGFILE
 *
 * Presents part after part by the documented handshake, over as many lost connections as it takes.  The log gets one line
 * a part that was answered: number, run, verdict, findings, first two counts, microseconds from trigger to result read.
 */
#include <modbus.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STATION = 100, READ = 33, READY = 103, BUSY = 104, ACKNOWLEDGE = 41, TRIGGER = 42, VALID = 132 };

static uint16_t block[READ];

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static unsigned at(int address) { return block[address - STATION]; }

static uint32_t at32(int address) { return (uint32_t)at(address) << 16 | at(address + 1); }

static int read_block(modbus_t *link) { return modbus_read_registers(link, STATION, READ, block) == READ; }

static int write_words(modbus_t *link, int address, int count, const uint16_t *words)
{
    return modbus_write_registers(link, address, count, words) == count;
}

static int is_mine(uint32_t run, uint32_t part) { return at(VALID) == 1 && at32(114) == run && at32(116) == part; }

/* Registers 0..39; then trigger with a telegram of its own. */
static int present(modbus_t *link, uint32_t run, uint32_t part)
{
    uint16_t words[40] = {run >> 16, run, part >> 16, part}, low[2] = {0, 0}, high = 1;
    char serial[33] = {0};
    snprintf(serial, sizeof serial, "SN-%06u", part);
    for (int i = 0; i < 16; i++)
        words[4 + i] = (uint8_t)serial[2 * i] << 8 | (uint8_t)serial[2 * i + 1];
    return write_words(link, ACKNOWLEDGE, 2, low) && write_words(link, 0, 40, words)
        && write_words(link, TRIGGER, 1, &high);
}

/* Present until answered; 0 when the link broke. */
static int inspect(modbus_t *link, uint32_t run, uint32_t part, int *sent, double *began_us)
{
    int presented = 0;
    for (;;) {
        if (!read_block(link))
            return 0;
        if (is_mine(run, part))
            return 1;
        if (presented && at(READY))
            presented = 0; /* refused, or the station restarted */
        if (!presented && (at(READY) || (at(BUSY) && *sent))) {
            if (!*sent)
                *began_us = now_us();
            if (!present(link, run, part))
                return 0;
            presented = *sent = 1;
        }
    }
}

static int acknowledge(modbus_t *link, uint32_t run, uint32_t part)
{
    uint16_t high[2] = {1, 0}, low = 0;
    if (!write_words(link, ACKNOWLEDGE, 2, high))
        return 0;
    do {
        if (!read_block(link))
            return 0;
    } while (is_mine(run, part));
    return write_words(link, ACKNOWLEDGE, 1, &low);
}

static void reconnect(modbus_t *link)
{
    do {
        modbus_close(link);
        usleep(20000);
    } while (modbus_connect(link) != 0);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    modbus_t *link = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    FILE *log = fopen(argv[5], "a");
    uint32_t run = strtoul(argv[2], NULL, 10), last = strtoul(argv[4], NULL, 10);
    if (!link || !log)
        return 2;
    modbus_set_response_timeout(link, 1, 0);
    reconnect(link);
    for (uint32_t part = strtoul(argv[3], NULL, 10); part <= last; part++) {
        int sent = 0;
        double began_us = 0;
        while (!inspect(link, run, part, &sent, &began_us))
            reconnect(link);
        double took_us = now_us() - began_us;
        fprintf(log, "%u %u %u %u %u %u %.0f\n", part, run, at(118), at(120), at(121), at(122), took_us);
        fflush(log);
        while (!acknowledge(link, run, part))
            reconnect(link);
    }
    modbus_close(link);
    modbus_free(link);
    return fclose(log);
}
