# The four functions of Crypt::Ed25519 that SyTest calls, on CryptX, which distributions package and the original they
# do not. run.sh puts this folder last on the search path, so that an installed Crypt::Ed25519 goes first.
package Crypt::Ed25519;

use strict;
use warnings;

use Crypt::PK::Ed25519;
use Crypt::PRNG qw( random_bytes );

our $VERSION = "0";

# 32 random bytes: the seed that RFC 8032 calls the private key.
sub eddsa_secret_key
{
   return random_bytes( 32 );
}

sub eddsa_public_key
{
   my ( $secret ) = @_;
   return Crypt::PK::Ed25519->new->import_key_raw( $secret, "private" )->export_key_raw( "public" );
}

sub eddsa_sign
{
   my ( $message, undef, $secret ) = @_;
   return Crypt::PK::Ed25519->new->import_key_raw( $secret, "private" )->sign_message( $message );
}

sub verify
{
   my ( $message, $public, $signature ) = @_;
   return Crypt::PK::Ed25519->new->import_key_raw( $public, "public" )->verify_message( $signature, $message );
}

1;
