# SPDX-License-Identifier: MIT
use strict;
use warnings;
use DBI;

my ($path, $script, $so) = @ARGV;
my $db = DBI->connect("dbi:SQLite:dbname=$path", "", "", {RaiseError => 1});
print "$DBD::SQLite::VERSION\n$db->{sqlite_version}\n";
if ($so) {
    $db->sqlite_enable_load_extension(1);
    $db->selectrow_array("SELECT load_extension(?)", undef, $so);
}
open my $file, "<", $script or die $!;
while (my $sql = <$file>) {
    my ($value) = $db->selectrow_array($sql);
    print "$value\n";
}
$db->disconnect or die $db->errstr;
