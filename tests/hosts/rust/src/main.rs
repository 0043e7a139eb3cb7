// SPDX-License-Identifier: MIT
use rusqlite::{types::Value, Connection};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let db = Connection::open(&args[1])?;
    println!("0.31\n{}", rusqlite::version());
    if !args[3].is_empty() {
        unsafe {
            db.load_extension_enable()?;
            db.load_extension(&args[3], None)?;
        }
    }
    for sql in std::fs::read_to_string(&args[2])?.lines() {
        match db.query_row(sql, [], |row| row.get(0))? {
            Value::Text(s) => println!("{s}"),
            Value::Integer(i) => println!("{i}"),
            other => println!("{other:?}"),
        }
    }
    db.close().map_err(|(_, e)| e)?;
    Ok(())
}
