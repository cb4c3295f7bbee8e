# META.json is as the PGXN Meta Spec 1.0.0 says (https://pgxn.org/spec/), names files that
# are there, and the version of the extension.

use strict;
use warnings;

use JSON::PP;
use Test::More;

my %licenses = map { $_ => 1 } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd
  gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5
  postgresql qpl_1_0 ssleay sun zlib open_source restricted unrestricted unknown);

# Types of the specification: each says what is wrong with a value, or nothing.

sub string
{
	my ($value) = @_;
	return defined $value && !ref $value && length $value ? () : 'is no string';
}

sub matching
{
	my ($pattern, $what) = @_;
	return sub { return string(@_) || $_[0] !~ $pattern ? "is no $what" : () };
}

my $version = qr/(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?/;
my $version_string = matching(qr/^$version$/, 'semantic version');
my $one_range = qr/((<=?|>=?|==|!=)\s*)?(0|$version)/;
my $range = matching(qr/^$one_range(\s*,\s*$one_range)*$/, 'range of versions');
my $uri = matching(qr{^[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#]+\S*$}, 'URI');
my $path = matching(qr{^(?!/)[^\\]+$}, 'relative path');
my $term = matching(qr{^[^\s[:cntrl:]/\\]{2,}$}, 'term');
my $tag = matching(qr{^[^[:cntrl:]/\\]{1,255}$}, 'tag');

# A string is a list of one.
sub list
{
	my ($of) = @_;
	return sub {
		my @values = ref $_[0] eq 'ARRAY' ? @{ $_[0] } : ($_[0]);
		return @values ? map { $of->($_) } @values : 'is an empty list';
	};
}

# Keys that the specification names, each with its type; ! is for those that are required.
# Others begin with "x_".
sub map_of
{
	my (%types) = @_;
	my %required = map { s/!$//r => /!$/ ? 1 : 0 } keys %types;
	return sub {
		my ($map) = @_;
		return 'is no map' if ref $map ne 'HASH';
		my @wrong = map { "has no $_" } grep { $required{$_} && !exists $map->{$_} } sort keys %required;
		foreach my $key (sort keys %$map)
		{
			my $type = $types{$key} // $types{"$key!"};
			push @wrong, "has an unknown key $key" if !$type && $key !~ /^x_/i;
			push @wrong, map { "$key $_" } $type->($map->{$key}) if $type;
		}
		return @wrong;
	};
}

# Keys of a type, with values of another
sub map_from
{
	my ($keys, $values) = @_;
	return sub {
		my ($map) = @_;
		return 'is no map' if ref $map ne 'HASH';
		return map {
			my $key = $_;
			map { "$key $_" } ($keys->($key), $values->($map->{$key}));
		} sort keys %$map;
	};
}

my $license = list(sub { return ref $_[0] || !$licenses{ $_[0] // '' } ? 'is no license' : () });
my $spec = map_of(
	'abstract!' => \&string,
	'maintainer!' => list(\&string),
	'license!' => sub { return ref $_[0] eq 'HASH' ? map_from(\&string, $uri)->(@_) : $license->(@_) },
	'provides!' => map_from($term,
		map_of('file!' => $path, 'version!' => $version_string, abstract => \&string, docfile => $path)),
	'meta-spec!' => map_of('version!' => matching(qr/^1\.0\.0$/, 'known version'), url => $uri),
	'name!' => $term,
	'version!' => $version_string,
	description => \&string,
	generated_by => \&string,
	tags => list($tag),
	no_index => map_of(file => list($path), directory => list($path)),
	prereqs => map_from(
		matching(qr/^(configure|build|test|runtime|develop)$/, 'phase'),
		map_from(
			matching(qr/^(requires|recommends|suggests|conflicts)$/, 'relationship'),
			map_from($term, $range))),
	release_status => matching(qr/^(stable|testing|unstable)$/, 'release status'),
	resources => map_of(
		homepage => $uri,
		bugtracker => map_of(web => $uri, mailto => matching(qr/^[^@\s]+@[^@\s]+$/, 'address')),
		repository => map_of(web => $uri, url => $uri, type => matching(qr/^[a-z]+$/, 'lowercase string'))));

sub slurp
{
	my ($file) = @_;
	local $/;
	open my $handle, '<', $file or die "could not read $file: $!";
	my $text = <$handle>;
	close $handle;
	return $text;
}

sub meta
{
	return JSON::PP->new->decode(slurp('META.json'));
}

my $meta = meta();
is_deeply([ $spec->($meta) ], [], 'META.json is valid');
my $provided = $meta->{provides}{session_admin};
foreach my $file ($provided->{file}, $provided->{docfile}, @{ $meta->{no_index}{directory} })
{
	ok(-e $file, "$file is there");
}
my ($default_version) = slurp('session_admin.control') =~ /^default_version = '([^']+)'/m;
like($meta->{version}, qr/^\Q$default_version\E(\.|$)/, 'the version is that of the control file');
is($provided->{version}, $meta->{version}, 'the distribution and the extension have one version');
my ($latest) = slurp('CHANGELOG.md') =~ /^## (\S+)/m;
is($latest, $default_version, 'the changelog begins with the version');

# What is wrong is found.
sub wrong
{
	my ($change) = @_;
	my $wrong = meta();

	$change->($wrong);
	return join('; ', $spec->($wrong));
}

is(wrong(sub { delete $_[0]{license} }), 'has no license', 'what is required');
is(wrong(sub { $_[0]{licence} = 'mit' }), 'has an unknown key licence', 'unknown keys');
is(wrong(sub { $_[0]{x_anything} = { a => 1 } }), '', 'keys of your own');
is(wrong(sub { $_[0]{license} = 'PostgreSQL' }), 'license is no license', 'licenses');
is(wrong(sub { $_[0]{license} = { PostgreSQL => 'https://www.postgresql.org/about/licence' } }), '', 'links to licenses');
is(wrong(sub { $_[0]{version} = '1.0' }), 'version is no semantic version', 'versions');
is( wrong(sub { $_[0]{prereqs}{runtime}{requires}{PostgreSQL} = '>= 15' }),
	'prereqs runtime requires PostgreSQL is no range of versions', 'ranges of versions');
is(wrong(sub { $_[0]{prereqs}{test}{requires}{pgtap} = '>= 1.2.0, != 1.2.1' }), '', 'ranges of several versions');
is(wrong(sub { $_[0]{prereqs}{running} = {} }), 'prereqs running is no phase', 'phases');
is( wrong(sub { delete $_[0]{provides}{session_admin}{file} }),
	'provides session_admin has no file', 'files of extensions');
is(wrong(sub { $_[0]{release_status} = 'final' }), 'release_status is no release status', 'release status');
is(wrong(sub { $_[0]{maintainer} = [] }), 'maintainer is an empty list', 'maintainers');
is(wrong(sub { $_[0]{tags} = 'a/b' }), 'tags is no tag', 'tags');

done_testing();
