// SPDX-License-Identifier: MIT
// Node, and Deno, whose node:sqlite has the same interface.
import { readFileSync } from "node:fs";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";

const [path, script, so] = process.argv.slice(2);
const db = new DatabaseSync(path, { allowExtension: true });
const one = (sql) => Object.values(db.prepare(sql).get())[0];
console.log(globalThis.Deno ? Deno.version.deno : process.versions.node);
console.log(one("SELECT sqlite_version()"));
if (so) db.loadExtension(so);
for (const sql of readFileSync(script, "utf8").trim().split("\n")) {
  console.log(one(sql));
}
db.close();
