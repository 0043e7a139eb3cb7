// SPDX-License-Identifier: MIT
import { Database } from "bun:sqlite";

const [path, script, so] = process.argv.slice(2);
const db = new Database(path);
const one = (sql) => db.query(sql).values()[0][0];
console.log(Bun.version);
console.log(one("SELECT sqlite_version()"));
if (so) db.loadExtension(so);
for (const sql of (await Bun.file(script).text()).trim().split("\n")) {
  console.log(one(sql));
}
db.close(true); // true: throw when a statement is still open
