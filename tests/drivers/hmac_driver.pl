#!/bin/sh
# A kmsplug driver in Perl, written from protocol/SPEC.md alone: HMAC keys with versions and states, kept in a file.
# It needs Perl and nothing else. Perl cannot set its own limit for core dumps [11-2], so a shell does. [n]: a rule.
ulimit -c 0; exec perl -x "$0" "$@"
#!perl
use strict;
use warnings;
use B ();
use Digest::SHA ();
use Encode ();
use JSON::PP ();
use MIME::Base64 ();
use POSIX ();

use constant { PARSE => -32700, REQUEST => -32600, METHOD => -32601, PARAMS => -32602, DEFECT => -32603, REFUSED => -32000 };
use constant { HANDSHAKE => 65_536, MOST_FRAME => 1 << 20, MOST_INPUT => 65_536, MOST_RANDOM => 65_536, LARGEST => 2**53 - 1 };

my %HMAC = (
    HMAC_SHA_256 => [ \&Digest::SHA::hmac_sha256, 32 ],
    HMAC_SHA_384 => [ \&Digest::SHA::hmac_sha384, 48 ],
    HMAC_SHA_512 => [ \&Digest::SHA::hmac_sha512, 64 ],
);
my %REFUSAL_OF = ( SUSPENDED => 'KEY_DISABLED', DEACTIVATED => 'KEY_INVALID_STATE' );    # [6.2-1]
my ( $phase, $limit, $path ) = ( 'NEW', HANDSHAKE, undef );
my $store = { identity => 'hmac:' . unpack( 'H*', random_bytes(8) ), keys => {}, order => [], changes => {} };

# Refusals.

sub refuse {
    my ( $code, $message, $number, $path ) = @_;
    die { code => $number // REFUSED, message => $message, data => { code => $code, $path ? ( path => $path ) : () } };
}
sub malformed { refuse( 'INVALID_ARGUMENT', "$_[0] is missing, malformed or out of bounds", PARAMS, $_[0] ) }
sub unsupported { refuse( 'UNSUPPORTED_OPERATION', $_[0], REFUSED, $_[1] ) }

# Values. A decoder of Perl's tells a number from a text by a flag only.

sub is_integer {
    my ($value) = @_;
    return 0 if !defined $value || ref $value;
    my $flags = B::svref_2object( \$value )->FLAGS;
    return !( $flags & B::SVf_POK() ) && ( $flags & B::SVf_IOK() ) && abs($value) <= LARGEST;
}
sub is_text { return defined $_[0] && !ref $_[0] && B::svref_2object( \$_[0] )->FLAGS & B::SVf_POK() }
sub is_object { return ref $_[0] eq 'HASH' }
sub is_flag { return JSON::PP::is_bool( $_[0] ) }

sub text {
    my ( $params, $name, $most, $required ) = @_;
    my $value = $params->{$name};
    return undef if !defined $value && !$required;
    malformed($name) if !is_text($value) || $value eq '' || length $value > $most;
    return $value;
}

sub bytes {    # one byte string has one text [2.6-2]
    my ( $params, $name, $most ) = @_;
    my $value = $params->{$name};
    malformed($name) if !is_text($value) || $value =~ m{[^A-Za-z0-9+/=]};
    my $data = MIME::Base64::decode_base64($value);
    malformed($name) if MIME::Base64::encode_base64( $data, '' ) ne $value;
    malformed($name) if length $data > $most;
    return $data;
}

sub number {
    my ( $params, $name, $least, $most, $absent ) = @_;
    my $value = $params->{$name} // $absent;
    malformed($name) if !is_integer($value) || $value < $least || $value > $most;
    return $value;
}

sub only {    # never ignored [4.1-2]
    my ( $params, $name, @values ) = @_;
    my $value = $params->{$name};
    return if !defined $value;
    malformed($name) if !is_text($value) && !is_flag($value);
    for my $one (@values) { return if is_flag($one) ? is_flag($value) && !$value == !$one : is_text($value) && $value eq $one }
    unsupported( "this driver has no such $name", $name );
}

sub texts {
    my ( $params, $name, $most ) = @_;
    my $value = $params->{$name} // {};
    malformed($name) if !is_object($value) || keys %$value > $most || grep { !is_text($_) } values %$value;
    return {%$value};
}

# The keystore.

sub random_bytes {
    my ($length) = @_;
    open my $source, '<:raw', '/dev/urandom' or die 'no random bytes';
    my $data = '';
    while ( length $data < $length ) { sysread( $source, $data, $length - length $data, length $data ) or die 'no random bytes' }
    return $data;
}

sub moment { return POSIX::strftime( '%Y-%m-%dT%H:%M:%SZ', gmtime ) }

sub save {    # whole, or not at all, and before it is answered
    return if !defined $path;
    my $mask = umask 0077;
    open my $file, '>:raw', "$path.new" or refuse( 'PROVIDER_UNAVAILABLE', 'the file cannot be written' );
    print {$file} JSON::PP->new->ascii->encode($store);
    close $file or refuse( 'PROVIDER_UNAVAILABLE', 'the file cannot be written' );
    umask $mask;
    rename "$path.new", $path or refuse( 'PROVIDER_UNAVAILABLE', 'the file cannot be written' );
}

sub find {
    my ($params) = @_;
    my $id = text( $params, 'key_id', 2048, 1 );
    return $store->{keys}{$id} // refuse( 'KEY_NOT_FOUND', 'there is no such key' );
}

sub describe {
    my ($key) = @_;
    my $current = $key->{versions}[-1];
    return {
        key_id => $key->{id}, key_version => $current->{name}, algorithm => $key->{algorithm}, usage => 'GENERATE_VERIFY_MAC',
        state => $current->{state}, enforced_by => 'host', protection => 'software', created_at => $key->{created},
        defined $key->{name} ? ( name => $key->{name} ) : (), %{ $key->{tags} } ? ( tags => $key->{tags} ) : (),
    };
}

sub add_version {
    my ($key) = @_;
    my $material = MIME::Base64::encode_base64( random_bytes( $HMAC{ $key->{algorithm} }[1] ), '' );
    my $name = '' . ( 1 + @{ $key->{versions} } );
    push @{ $key->{versions} }, { name => $name, state => 'ACTIVE', created => moment(), material => $material };
}

sub once {    # a change that is asked for twice under one name is made once [4.6-20]
    my ( $params, $method, $make ) = @_;
    my $meta = $params->{meta};
    my $name = is_object($meta) && is_text( $meta->{idempotency_key} ) ? "$method $meta->{idempotency_key}" : undef;
    my $known = defined $name ? $store->{changes}{$name} : undef;
    return describe( $store->{keys}{$known} ) if defined $known;
    my $key = $make->();
    $store->{changes}{$name} = $key->{id} if defined $name;
    save();
    return describe($key);
}

sub page {
    my ( $params, $label, @all ) = @_;
    my $size   = number( $params, 'limit', 1, 1000, 100 );
    my $cursor = text( $params, 'cursor', 4096 );
    my $start  = 0;
    if ( defined $cursor ) {
        malformed('cursor') if $cursor !~ /\A([1-9][0-9]{0,8}):(.*)\z/s || $2 ne $label || $1 >= @all;
        $start = $1;
    }
    my $end = $start + $size < @all ? $start + $size : scalar @all;
    return ( $end < @all ? { next_cursor => "$end:$label" } : {}, @all[ $start .. $end - 1 ] );
}

sub usable {
    my ( $params, $making ) = @_;
    my $key     = find($params);
    my $version = text( $params, 'key_version', 256 );
    only( $params, 'mechanism', $key->{algorithm} );
    my @found = $making ? $key->{versions}[-1] : reverse @{ $key->{versions} };
    @found = grep { $_->{name} eq $version } @{ $key->{versions} } if defined $version;
    refuse( 'KEY_NOT_FOUND', 'there is no such version' ) if !@found;
    my @good = grep { $_->{state} eq 'ACTIVE' || ( !$making && $_->{state} eq 'DEACTIVATED' ) } @found;
    refuse( $REFUSAL_OF{ $found[0]{state} }, "the key is $found[0]{state}" ) if !@good;
    return ( $key, @good );
}

sub code_of {
    my ( $key, $version, $message ) = @_;
    return $HMAC{ $key->{algorithm} }[0]->( $message, MIME::Base64::decode_base64( $version->{material} ) );
}

sub same {    # in constant time [4.7-8]: what is compared is blinded by a key that nobody knows
    my ( $one, $other ) = @_;
    my $blind = random_bytes(32);
    return Digest::SHA::hmac_sha256( $one, $blind ) eq Digest::SHA::hmac_sha256( $other, $blind );
}

my %OPERATIONS = (
    'key.create' => sub {
        my ($params) = @_;
        my $algorithm = text( $params, 'algorithm', 64, 1 );
        my ( $name, $tags ) = ( text( $params, 'name', 256 ), texts( $params, 'tags', 50 ) );
        unsupported('keys are HMAC_SHA_256, HMAC_SHA_384 and HMAC_SHA_512') if !exists $HMAC{$algorithm};
        only( $params, 'usage',      'GENERATE_VERIFY_MAC' );
        only( $params, 'protection', 'software' );
        only( $params, 'origin',     'generated' );
        only( $params, 'exportable', JSON::PP::false() );
        return once( $params, 'key.create', sub {
            my $key = { id => 'hmac-' . unpack( 'H*', random_bytes(8) ), algorithm => $algorithm, name => $name, tags => $tags, created => moment(), versions => [] };
            add_version($key);
            push @{ $store->{order} }, $key->{id};
            return $store->{keys}{ $key->{id} } = $key;
        } );
    },
    'key.get'  => sub { return describe( find( $_[0] ) ) },
    'key.list' => sub {
        my ( $more, @ids ) = page( $_[0], 'keys', @{ $store->{order} } );
        return { keys => [ map { describe( $store->{keys}{$_} ) } @ids ], %$more };
    },
    'key.list_versions' => sub {
        my $key = find( $_[0] );
        my ( $more, @found ) = page( $_[0], $key->{id}, @{ $key->{versions} } );
        my @told = map { { key_version => $_->{name}, state => $_->{state}, created_at => $_->{created},
                           current => $_ == $key->{versions}[-1] ? JSON::PP::true() : JSON::PP::false() } } @found;
        return { key_id => $key->{id}, versions => \@told, %$more };
    },
    'key.rotate' => sub {
        my ($params) = @_;
        my $key = find($params);
        return once( $params, "key.rotate $key->{id}", sub {
            my $current = $key->{versions}[-1];
            refuse( 'KEY_DISABLED', 'the key is SUSPENDED' ) if $current->{state} eq 'SUSPENDED';
            $current->{state} = 'DEACTIVATED';
            add_version($key);
            return $key;
        } );
    },
    'key.disable' => sub {
        my $key = find( $_[0] );
        for my $one ( grep { $_->{state} ne 'SUSPENDED' } @{ $key->{versions} } ) { @$one{ 'former', 'state' } = ( $one->{state}, 'SUSPENDED' ) }
        save();
        return describe($key);
    },
    'key.enable' => sub {
        my $key = find( $_[0] );
        for my $one ( grep { $_->{state} eq 'SUSPENDED' } @{ $key->{versions} } ) { $one->{state} = $one->{former} }
        save();
        return describe($key);
    },
    'key.reconcile' => sub {
        my ($params) = @_;
        my ( $method, $name ) = ( text( $params, 'method', 64, 1 ), text( $params, 'idempotency_key', 128, 1 ) );
        my $id = text( $params, 'key_id', 2048 );
        return { outcome => 'unknown' } if $method ne 'key.create' && !( $method eq 'key.rotate' && defined $id );
        my $known = $store->{changes}{ $method eq 'key.create' ? "key.create $name" : "key.rotate $id $name" };
        return defined $known ? { outcome => 'applied', key => describe( $store->{keys}{$known} ) } : { outcome => 'not_applied' };
    },
    'crypto.mac' => sub {
        my ($params) = @_;
        my $message = bytes( $params, 'message', MOST_INPUT );
        my ( $key, $version ) = usable( $params, 1 );
        my $code = MIME::Base64::encode_base64( code_of( $key, $version, $message ), '' );
        return { key_id => $key->{id}, key_version => $version->{name}, mechanism => $key->{algorithm}, protection => 'software', mac => $code };
    },
    'crypto.verify_mac' => sub {
        my ($params) = @_;
        my ( $message, $code ) = ( bytes( $params, 'message', MOST_INPUT ), bytes( $params, 'mac', MOST_FRAME ) );
        my ( $key, @versions ) = usable( $params, 0 );
        for my $one (@versions) {
            return { key_id => $key->{id}, key_version => $one->{name}, valid => JSON::PP::true() } if same( code_of( $key, $one, $message ), $code );
        }
        return { key_id => $key->{id}, valid => JSON::PP::false() };
    },
    'crypto.random' => sub { return { data => MIME::Base64::encode_base64( random_bytes( number( $_[0], 'length_bytes', 1, MOST_RANDOM, undef ) ), '' ) } },
    'plugin.health' => sub {
        only( $_[0], 'depth', 'shallow', 'deep' );
        my $well = !defined $path || -w $path ? JSON::PP::true() : JSON::PP::false();
        return { healthy => $well, checks => [ { name => 'file', healthy => $well } ] };
    },
);

my @ROWS = (
    ( map { { operation => 'key.create', key_algorithm => $_, usage => 'GENERATE_VERIFY_MAC' } } sort keys %HMAC ),
    ( map { { operation => "key.$_" } } qw(get list list_versions rotate disable enable reconcile) ),
    { operation => 'crypto.random', max_input_bytes => MOST_RANDOM },
    map { my $kind = $_; map { { operation => "crypto.$_", key_algorithm => $kind, mechanism => $kind, max_input_bytes => MOST_INPUT,
                                 versions_addressable => JSON::PP::true(), protection => 'software' } } qw(mac verify_mac) } sort keys %HMAC,
);

# The session [3.1].

sub initialize {
    my ($params) = @_;
    refuse( 'INVALID_ARGUMENT', 'the session is initialized already' ) if $phase ne 'NEW';
    my $offered = $params->{protocol_versions};
    malformed('protocol_versions') if ref $offered ne 'ARRAY' || !@$offered || grep { !is_text($_) } @$offered;
    malformed('host') if !is_object( $params->{host} );
    my $most = number( $params, 'max_frame_bytes', HANDSHAKE, 1 << 26, MOST_FRAME );
    unsupported('this driver speaks protocol version 1') if !grep { $_ eq '1' } @$offered;
    ( $phase, $limit ) = ( 'INITIALIZED', $most < MOST_FRAME ? $most : MOST_FRAME );
    my $file = { type => 'string', format => 'path', description => 'Where the keys are kept; without it they die with the driver.' };
    return {
        protocol_version => '1', driver => { name => 'hmac', version => '1.0' }, max_frame_bytes => $limit, max_concurrency => 1,
        capabilities => \@ROWS, config_schema => { type => 'object', additionalProperties => JSON::PP::false(), properties => { file => $file } },
    };
}

sub configure {
    my ($params) = @_;
    refuse( 'INVALID_ARGUMENT', 'configure comes once, after initialize' ) if $phase ne 'INITIALIZED';
    my ( $config, $dry ) = ( $params->{config}, $params->{dry_run} );
    malformed('config')  if !is_object($config);
    malformed('dry_run') if defined $dry && !is_flag($dry);
    for my $name ( sort keys %$config ) { refuse( 'CONFIGURATION_ERROR', 'there is no such setting', REFUSED, $name ) if $name ne 'file' }
    my ( $file, $found ) = ( $config->{file}, $store );
    if ( defined $file ) {
        refuse( 'CONFIGURATION_ERROR', 'file has to be an absolute path', REFUSED, 'file' ) if !is_text($file) || $file !~ m{\A/};
        if ( open my $input, '<:raw', $file ) {
            local $/ = undef;
            $found = eval { JSON::PP->new->ascii->decode(<$input>) } // refuse( 'KEYSTORE_CORRUPT', 'the file is damaged' );
        }
    }
    if ( !$dry ) {
        ( $phase, $path, $store ) = ( 'READY', $file, $found );
        save();
    }
    return { identity => $found->{identity}, key_namespace => ['hmac-'] };
}

sub call {
    my ( $method, $params ) = @_;
    return {} if $method eq 'plugin.ping';
    if ( $method eq 'plugin.shutdown' ) { $phase = 'OVER'; return {} }
    return initialize($params) if $method eq 'plugin.initialize';
    return configure($params)  if $method eq 'plugin.configure';
    my $operation = $OPERATIONS{$method} // refuse( 'UNSUPPORTED_OPERATION', 'this driver does not offer that', METHOD );
    refuse( 'INVALID_ARGUMENT', 'not before plugin.configure', REQUEST ) if $phase ne 'READY';
    return $operation->($params);
}

sub answer {
    my ( $id, %body ) = @_;
    my $line = JSON::PP->new->ascii->encode( { jsonrpc => '2.0', id => $id, %body } );
    if ( length $line > $limit ) {
        my $error = { code => REFUSED, message => 'the answer would be longer than a line may be', data => { code => 'LIMIT_EXCEEDED' } };
        return answer( $id, error => $error );
    }
    $line .= "\n";
    for ( my $done = 0; $done < length $line; ) { $done += syswrite( STDOUT, $line, length($line) - $done, $done ) // exit 1 }
}

# Perl's strict UTF-8 refuses U+FFFF and its like, which are characters in JSON; its lax one takes surrogates.
sub text_of {
    my ($line) = @_;
    my $text = Encode::decode( 'utf8', $line, Encode::FB_CROAK() );
    die if $text =~ /[\x{D800}-\x{DFFF}]|[^\x{0}-\x{10FFFF}]/;
    return $text;
}

my $JSON = JSON::PP->new->allow_bignum;    # fractions and what is too large become objects, which are no integers

sub serve_line {
    my ($line) = @_;
    my ( $id, $known, $result );
    my $good = eval {
        my $message = eval { $JSON->decode( text_of($line) ) };
        refuse( 'INVALID_ARGUMENT', 'the line is not JSON in UTF-8', PARSE ) if !defined $message;
        refuse( 'INVALID_ARGUMENT', 'the line is not an object', REQUEST ) if !is_object($message);
        my ( $name, $method, $params ) = ( $message->{id}, $message->{method}, exists $message->{params} ? $message->{params} : {} );
        if ( exists $message->{id} ) {
            refuse( 'INVALID_ARGUMENT', 'the id is neither a short text nor an integer', REQUEST ) if !is_integer($name) && !( is_text($name) && length $name <= 128 );
            $id = $name;
        }
        return 1 if exists $message->{id} && !exists $message->{method};    # a response [2.5-4]
        my $legal = is_text( $message->{jsonrpc} ) && $message->{jsonrpc} eq '2.0' && is_text($method) && is_object($params);
        refuse( 'INVALID_ARGUMENT', 'the line is not a JSON-RPC 2.0 request', REQUEST ) if !$legal;
        $result = call( $method, $params ) if exists $message->{id};
        1;
    };
    return answer( $id, result => $result ) if $good && defined $result;
    return if $good;
    my $error = $@;
    if ( ref $error ne 'HASH' ) {                                            # [7.6-2]
        print STDERR "a defect: $error";
        $error = { code => DEFECT, message => 'the driver failed; its log says more', data => { code => 'INTERNAL_ERROR' } };
    }
    answer( $id, error => $error );
}

$SIG{INT} = 'IGNORE';
if ( @ARGV || -t STDIN ) {
    print STDERR "This is a kmsplug driver: a host starts it and speaks with it over stdin and stdout.\n";
    exit 2;
}
binmode $_ for *STDIN, *STDOUT;
my ( $buffer, $long ) = ( '', 0 );
while ( $phase ne 'OVER' && sysread STDIN, my $piece, 65_536 ) {
    $buffer .= $piece;
    while ( $phase ne 'OVER' && ( my $end = index $buffer, "\n" ) >= 0 ) {
        my $line = substr $buffer, 0, $end + 1, '';
        chop $line;
        if ( $long || length $line > $limit ) {
            $long = 0;
            answer( undef, error => { code => REQUEST, message => 'the line is longer than the limit', data => { code => 'INVALID_ARGUMENT' } } );
        }
        elsif ( $line =~ /[^ \t\r]/ ) { serve_line($line) }
    }
    if ( length $buffer > $limit ) { ( $buffer, $long ) = ( '', 1 ) }        # in bounded memory [2.4-4]
}
exit 0;
