// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"database/sql"
	"fmt"
	"os"
	"runtime"

	"github.com/mattn/go-sqlite3"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var extensions []string
	if os.Args[3] != "" {
		extensions = []string{os.Args[3]}
	}
	sql.Register("choir", &sqlite3.SQLiteDriver{Extensions: extensions})
	db, err := sql.Open("choir", os.Args[1])
	must(err)
	db.SetMaxOpenConns(1)
	version, _, _ := sqlite3.Version()
	fmt.Println(runtime.Version()[2:])
	fmt.Println(version)
	script, err := os.Open(os.Args[2])
	must(err)
	for lines := bufio.NewScanner(script); lines.Scan(); {
		var value string
		must(db.QueryRow(lines.Text()).Scan(&value))
		fmt.Println(value)
	}
	must(db.Close())
}
