# A database that was dropped and made again with the same number, as a copy of the same
# template, has tables of the same numbers: shared memory tells nothing of the old one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'session_admin'\nsession_admin.worker = off");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE template');
$node->safe_psql('template', 'CREATE EXTENSION session_admin');

my $create = 'CREATE DATABASE shop TEMPLATE template OID 54321';
my $touch = "SELECT session_admin.touch_session('cookie')";

$node->safe_psql('postgres', $create);
$node->safe_psql('shop', "SELECT session_admin.open_session('cookie', 'alice')");
is($node->safe_psql('shop', $touch), 't', 'a session is valid') for 1 .. 2;
$node->safe_psql('postgres', 'DROP DATABASE shop');

$node->safe_psql('postgres', $create);
is($node->safe_psql('shop', $touch), 'f', 'and not in another database of the same number');
$node->safe_psql('shop', "SELECT session_admin.open_session('another', 'bob')");
is($node->safe_psql('shop', $touch), 'f', 'nor when that has the application, too');
is($node->safe_psql('shop', "SELECT session_admin.touch_session('another')"), 't', 'which has its own');

$node->stop;
done_testing();
