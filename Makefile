# choir: build, check, test. `make help` lists the targets.
#
#   CC OPT CFLAGS LDFLAGS   compiler and flags; WERROR= lets warnings pass
#   BUILD SO                where objects and the extension go (per flavour)
#   CURL=dlopen             libcurl is opened at the first request; linked:
#                           linked; none: without the rooms of the network
#   PREFIX DESTDIR          for install; T='pattern' for test
SHELL := /bin/bash
CC ?= gcc
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
CURL ?= dlopen
BUILD ?= build$(if $(filter-out dlopen,$(CURL)),/curl-$(CURL))
SO ?= choir.so
OPT ?= -O2
CFLAGS ?= -g $(OPT)
WERROR ?= -Werror

WARN := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes $(WERROR)
# Flags that this compiler or processor may lack are tried once.
try = $(shell $(CC) -Werror $(1) -x c -c /dev/null -o /dev/null 2>/dev/null \
  && echo "$(1)")
HARDEN := -fstack-protector-strong $(call try,-fstack-clash-protection) \
  $(call try,-fcf-protection) \
  $(if $(filter -O0,$(OPT)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
LDHARDEN := -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--no-undefined
CURL_CFLAGS_linked := -DCHOIR_CURL_LINKED
CURL_LIBS_linked := -lcurl
CURL_CFLAGS_none := -DCHOIR_OMIT_NET
ALL_CFLAGS := -std=gnu11 -D_FILE_OFFSET_BITS=64 -fPIC -fvisibility=hidden -Iext $(WARN) $(HARDEN) \
  $(CFLAGS) $(EXTRA_CFLAGS) $(CURL_CFLAGS_$(CURL))

NET := http qdrant nats libsql
SRC := $(wildcard ext/*.c ext/*/*.c)
ifeq ($(CURL),none)
SRC := $(filter-out $(NET:%=ext/%/%),$(SRC))
endif
GEN := gen_help.c gen_sql.c
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN:%.c=$(BUILD)/%.o)
vpath gen_%.c $(BUILD)

all: $(SO) ## ./choir.so; so does make by itself

$(SO): $(OBJ)
	@echo "  link $@"
	@$(CC) -shared -o $@ $(OBJ) -Wl,-soname,choir.so $(LDHARDEN) \
	  $(EXTRA_CFLAGS) $(LDFLAGS) $(CURL_LIBS_$(CURL)) -lm -ldl

$(BUILD)/%.o: %.c | $(BUILD)/headers
	@mkdir -p $(@D)
	@echo "  cc   $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
-include $(OBJ:.o=.d)

$(BUILD)/gen_help.c: $(SRC) tools/docs.py
	@mkdir -p $(@D)
	@$(PYTHON) tools/docs.py help $@

$(BUILD)/gen_sql.c: $(wildcard sql/*.sql) tools/embed_sql.py
	@mkdir -p $(@D)
	@$(PYTHON) tools/embed_sql.py $@

# A missing header is named together with the package that brings it.
$(BUILD)/headers:
	@mkdir -p $(@D)
	@for want in sqlite3ext.h:libsqlite3-dev simde/x86/sse2.h:libsimde-dev \
	    $(if $(filter none,$(CURL)),,curl/curl.h:libcurl4-openssl-dev \
    openssl/ssl.h:libssl-dev); do \
	  echo "#include <$${want%:*}>" | $(CC) -E -x c - >/dev/null 2>&1 || { \
	    echo "choir: $${want%:*} is missing; run tools/setup.sh or" \
	      "apt-get install $${want#*:}" >&2; exit 1; }; done; touch $@

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 22

check: all ## format, layers, limits, warnings, docs, surface; about a minute
	@tools/check.sh

lint: ## the part of check that needs no build
	@tools/check.sh lint

test: ## the whole of the tests; T='name pattern' runs a part
	@tools/test.sh $(if $(T),'$(T)')

proving: all ## failures swept over everything, counted; FULL=1 SLICE=1 T=letter SEED=n
	@tools/setup.sh build >/dev/null
	@$(PYTHON) tests/proving/run.py $(T) $(if $(FULL),--full) $(if $(SLICE),--slice) \
	  $(if $(SEED),--seed $(SEED)) $(if $(REPLAY),--replay '$(REPLAY)')

demo: ## the story on real documents; DIR=folder Q='words' for yours
	@tools/setup.sh build
	@echo "demo: compiling choir"
	@$(MAKE) --no-print-directory -j$$(nproc) all >build/make.log
	@DIR='$(DIR)' Q='$(Q)' $(PYTHON) tools/demo/run.py

hosts: all ## install and run every program that can load choir
	@$(PYTHON) tests/hosts/run.py --install

platforms: ## the cases on i386, ARM, s390x and musl, emulated; T='s390x musl'
	@tests/platforms/run.sh $(T)

docs: ## docs/reference from the doc blocks
	@$(PYTHON) tools/docs.py reference docs/reference

amalgamation: dist/choir.c ## dist/choir.c and dist/choir.h, one file to compile in
dist/choir.c: $(SRC) $(wildcard ext/*.h ext/*/*.h ext/*/*.inc) \
    $(BUILD)/gen_help.c $(BUILD)/gen_sql.c tools/amalgamate.py
	@$(PYTHON) tools/amalgamate.py $(BUILD) dist
	@echo "  made dist/choir.c, dist/choir.h"

# Another flavour is the same build in its own folder: the entry point comes
# from the file's name, so it stays choir.so.
SAN := -fno-omit-frame-pointer -fno-sanitize-recover=undefined
asan: ## build/asan/choir.so with AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory BUILD=build/asan SO=build/asan/choir.so \
	  OPT=-O1 EXTRA_CFLAGS="$(SAN) -fsanitize=address,undefined \
	  -U_FORTIFY_SOURCE" LDHARDEN= all
ubsan: ## build/ubsan/choir.so with UBSan alone: loads without a preload
	@$(MAKE) --no-print-directory BUILD=build/ubsan SO=build/ubsan/choir.so \
	  OPT=-O1 EXTRA_CFLAGS="$(SAN) -fsanitize=undefined -static-libubsan \
	  -U_FORTIFY_SOURCE" LDHARDEN= all

kern: ## every kernel tier of this machine against its reference
	@mkdir -p $(BUILD)
	@$(CC) -O2 -o $(BUILD)/kern_test ext/kern/*.c tests/kern/kern_test.c -lm
	@$(BUILD)/kern_test
foreign: ## kernels this machine lacks: emulated AVX-512, NEON, WebAssembly
	@BUILD=$(BUILD) CC="$(CC)" sh tests/kern/run_foreign.sh

# What tests link with: the same sources, linked statically to SQLite.
$(BUILD)/libchoir.a: $(OBJ)
	@rm -f $@ && $(AR) rcs $@ $(OBJ)
core:
	@$(MAKE) --no-print-directory BUILD=build/core \
	  EXTRA_CFLAGS=-DSQLITE_CORE build/core/libchoir.a

build/unit/%_test: tests/unit/%_test.c core
	@mkdir -p $(@D)
	@$(CC) $(filter-out -Wconversion,$(ALL_CFLAGS)) -DSQLITE_CORE -o $@ $< \
	  build/core/libchoir.a -lcmocka -lsqlite3 -lm -ldl

tsan: ## threads of one process under ThreadSanitizer
	@$(MAKE) --no-print-directory BUILD=build/tsan CC=clang-14 OPT=-O1 \
	  EXTRA_CFLAGS="-DSQLITE_CORE -fno-omit-frame-pointer -fsanitize=thread \
	  -U_FORTIFY_SOURCE" build/tsan/libchoir.a
	@clang-14 -std=gnu11 -g -O1 -DSQLITE_CORE -fsanitize=thread -o \
	  build/tsan/threads_test tests/unit/threads_test.c build/tsan/libchoir.a \
	  -lsqlite3 -lm -ldl -lpthread
	@TSAN_OPTIONS=exitcode=66 build/tsan/threads_test
valgrind: ## memcheck over the C unit tests and every example; T=name
	@tools/setup.sh only valgrind && tools/valgrind.sh $(T)
coverage: ## lines that the tests run, per room; fails below 90 %
	@tools/coverage.sh
analyze: ## clang-tidy, gcc -fanalyzer, cppcheck: nothing unexplained; T=tool
	@tools/setup.sh only clang-tidy-14 cppcheck && \
	  $(PYTHON) tools/analyze.py $(T)

# Every fuzz target is in one program; the name it is called by chooses. With
# clang's libFuzzer, for SECONDS each: what does not hold is left as a file.
FUZZ_SRC := $(wildcard tests/fuzz/*.c)
FUZZ := $(patsubst tests/fuzz/%.c,%,$(filter-out tests/fuzz/fuzz_%,$(FUZZ_SRC)))
FUZZ_FLAGS := -std=gnu11 -g -O1 -Iext -DSQLITE_CORE -Wall -Wextra -Werror
build/unit/fuzz_test: tests/unit/fuzz_test.c $(FUZZ_SRC) tests/fuzz/fuzz.h core
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -o $@ $(filter %.c,$(filter-out %/fuzz_main.c,$^)) \
	  build/core/libchoir.a -lsqlite3 -lm -ldl -lpthread
build/fuzz/fuzz: $(FUZZ_SRC) tests/fuzz/fuzz.h fuzzlib
	@clang-14 $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=undefined -o $@ $(FUZZ_SRC) \
	  build/fuzz/lib/libchoir.a -lsqlite3 -lm -ldl -lpthread
	@for t in $(FUZZ); do ln -sf fuzz build/fuzz/$$t; done
fuzzlib:
	@$(MAKE) --no-print-directory BUILD=build/fuzz/lib CC=clang-14 OPT=-O1 \
	  EXTRA_CFLAGS="-DSQLITE_CORE $(SAN) -fsanitize=fuzzer-no-link,address,undefined \
	  -U_FORTIFY_SOURCE" build/fuzz/lib/libchoir.a
SECONDS ?= 20
fuzz: build/fuzz/fuzz ## libFuzzer on what reads foreign bytes; SECONDS=20 each, T=target
	@SECONDS_EACH=$(SECONDS) tools/fuzz.sh $(if $(T),$(T),$(FUZZ))

build/oom/oom: tests/oom/oom.c tests/oom/world.c tests/oom/oom.h core
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -Wall -Wextra -Wshadow -Werror $(CFLAGS) -DSQLITE_CORE \
	  -o $@ $(filter %.c,$^) build/core/libchoir.a -lsqlite3 -lm -ldl
build/oom/cases.sql: $(SRC) tests/oom/calls.sql tools/docs.py
	@mkdir -p $(@D)
	@$(PYTHON) tools/docs.py cases $@ && cat tests/oom/calls.sql >> $@

bench: all ## every bench/bench_*.py, ratios side by side
	@for b in bench/bench_*.py; do echo "== $$b"; $(PYTHON) $$b || exit 1; done

# `.load choir` asks the dynamic linker for choir.so: ldconfig only looks at
# lib*.so*, and enters this one in its cache under its soname, choir.so.
install: all ## into PREFIX/lib, so that `.load choir` works from any folder
	@tools/install.sh '$(DESTDIR)' '$(PREFIX)' $(SO)

uninstall: ## what install put there
	@tools/install.sh --remove '$(DESTDIR)' '$(PREFIX)'

clean: ## everything that make made
	rm -rf build dist choir.so

.PHONY: all help check lint test proving demo hosts platforms docs amalgamation asan ubsan kern \
  foreign fuzz tsan valgrind coverage analyze bench install uninstall clean core fuzzlib
