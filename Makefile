# choir: build, test, check. `make help` lists the targets.
SHELL := /bin/bash
CC ?= gcc
PYTHON ?= /usr/bin/python3
OPT ?= -O2
BUILD ?= build

WARN = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror
HARDEN = -fstack-protector-strong -fvisibility=hidden -D_FORTIFY_SOURCE=2 \
  -fcf-protection -fstack-clash-protection
LDHARDEN = -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--no-undefined
CFLAGS ?= -g $(OPT)
ALL_CFLAGS = -std=gnu11 -fPIC $(WARN) $(HARDEN) $(CFLAGS) $(EXTRA_CFLAGS)

SRC := $(wildcard ext/*.c ext/*/*.c)
GEN := $(BUILD)/gen_help.c $(BUILD)/gen_sql.c
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN:.c=.o)

all: choir.so

choir.so: $(OBJ)
	@echo "  link $@"
	@$(CC) -shared -o $@ $(OBJ) $(LDHARDEN) $(LDFLAGS) -lm

$(BUILD)/%.o: %.c $(wildcard ext/*.h ext/*/*.h)
	@mkdir -p $(@D)
	@echo "  cc   $<"
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/gen_%.o: $(BUILD)/gen_%.c ext/core/core.h
	@echo "  cc   $<"
	@$(CC) $(ALL_CFLAGS) -Iext/core -c -o $@ $<

$(BUILD)/gen_help.c: $(SRC) tools/docs.py
	@mkdir -p $(@D)
	@$(PYTHON) tools/docs.py help $@

$(BUILD)/gen_sql.c: $(wildcard sql/*.sql) tools/embed_sql.py
	@mkdir -p $(@D)
	@$(PYTHON) tools/embed_sql.py $@

docs:
	$(PYTHON) tools/docs.py reference docs/reference

clean:
	rm -rf $(BUILD) dist choir.so

.PHONY: all docs clean
