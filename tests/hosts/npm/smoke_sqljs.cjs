// SPDX-License-Identifier: MIT
// sql.js: SQLite in WebAssembly, without extensions and without FTS5. It reads
// and writes a file that the shell made with choir.
const { readFileSync, writeFileSync } = require("node:fs");

const [path, script] = process.argv.slice(2);
require("sql.js")().then((SQL) => {
  const db = new SQL.Database(readFileSync(path));
  const one = (sql) => db.exec(sql)[0].values[0][0];
  console.log(
    JSON.parse(readFileSync(`${__dirname}/node_modules/sql.js/package.json`))
      .version,
  );
  console.log(one("SELECT sqlite_version()"));
  for (const sql of readFileSync(script, "utf8").trim().split("\n")) {
    console.log(one(sql));
  }
  writeFileSync(path, db.export());
  db.close();
});
