// SPDX-License-Identifier: MIT
// Runs a WASI program and passes on its exit code.
const { WASI } = require('node:wasi');
const fs = require('node:fs');
const wasi = new WASI({ version: 'preview1', args: process.argv.slice(2) });
WebAssembly.instantiate(fs.readFileSync(process.argv[2]), wasi.getImportObject())
  .then(({ instance }) => { process.exitCode = wasi.start(instance); });
