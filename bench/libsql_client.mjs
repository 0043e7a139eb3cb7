// SPDX-License-Identifier: MIT
// The other side of bench_libsql_query.py: the official client, one line of
// milliseconds for each line on stdin. node libsql_client.mjs URL SQL
import { createInterface } from "node:readline";
import { createClient } from "@libsql/client/web";

const [url, sql] = process.argv.slice(2);
const client = createClient({ url, intMode: "bigint" });
for await (const _ of createInterface({ input: process.stdin })) {
  const start = performance.now();
  let sum = 0n;
  for (const row of (await client.execute(sql)).rows) sum += row[0];
  console.log(JSON.stringify({ ms: performance.now() - start, sum: String(sum) }));
}
