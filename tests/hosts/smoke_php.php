<?php
// SPDX-License-Identifier: MIT
// PHP loads extensions from the folder in sqlite3.extension_dir only.
[, $path, $script, $so] = $argv;
echo PHP_VERSION, "\n", SQLite3::version()["versionString"], "\n";
$db = new SQLite3($path);
$db->enableExceptions(true);
if ($so) {
    $db->loadExtension(basename($so));
}
foreach (file($script) as $sql) {
    // Not query(): it runs a statement once more at the first fetch.
    echo $db->querySingle($sql), "\n";
}
$db->close();
