# SPDX-License-Identifier: MIT
require "sqlite3"

path, script, so = ARGV
db = SQLite3::Database.new(path)
puts RUBY_VERSION, db.execute("SELECT sqlite_version()")[0][0]
unless so.empty?
  db.enable_load_extension(true)
  db.load_extension(so)
end
File.foreach(script) { |sql| puts db.execute(sql)[0][0] }
db.close
