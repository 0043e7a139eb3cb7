// SPDX-License-Identifier: MIT
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;

public class Smoke {
  public static void main(String[] args) throws Exception {
    String url = "jdbc:sqlite:" + args[0] + "?enable_load_extension=true";
    String so = args.length > 2 ? args[2] : "";
    System.out.println(System.getProperty("java.version"));
    try (Connection db = DriverManager.getConnection(url);
        Statement statement = db.createStatement()) {
      print(statement, "SELECT sqlite_version()");
      if (!so.isEmpty()) {
        statement.execute("SELECT load_extension('" + so + "')");
      }
      for (String sql : Files.readAllLines(Path.of(args[1]))) {
        print(statement, sql);
      }
    }
  }

  static void print(Statement statement, String sql) throws Exception {
    try (ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      System.out.println(rows.getString(1));
    }
  }
}
