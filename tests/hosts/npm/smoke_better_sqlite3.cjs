// SPDX-License-Identifier: MIT
// better-sqlite3, and the libsql package, which has the same interface.
const { readFileSync } = require("node:fs");

const [name, path, script, so] = process.argv.slice(2);
const Database = require(name);
const db = new Database(path);
const one = (sql) => Object.values(db.prepare(sql).get())[0];
console.log(
  JSON.parse(readFileSync(`${__dirname}/node_modules/${name}/package.json`))
    .version,
);
console.log(one("SELECT sqlite_version()"));
if (so) db.loadExtension(so);
for (const sql of readFileSync(script, "utf8").trim().split("\n")) {
  console.log(one(sql));
}
db.close();
