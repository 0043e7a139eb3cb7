# SPDX-License-Identifier: MIT
package require sqlite3

lassign $argv path script so
puts $tcl_patchLevel
sqlite3 db $path
puts [db onecolumn {SELECT sqlite_version()}]
if {$so ne ""} {
  db enable_load_extension 1
  db eval {SELECT load_extension($so)}
}
set file [open $script]
while {[gets $file sql] >= 0} {
  puts [db onecolumn $sql]
}
db close
