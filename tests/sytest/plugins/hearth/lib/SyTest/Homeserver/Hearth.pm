use strict;
use warnings;

# One Hearth process of a SyTest run: its folder, certificate, configuration, start.
package SyTest::Homeserver::Hearth;
use base qw( SyTest::Homeserver );

use Cwd qw( getcwd );
use File::Copy qw( copy );
use File::Path qw( make_path remove_tree );

use SyTest::SSL qw( ensure_ssl_key create_ssl_cert );

sub _init
{
   my $self = shift;
   my ( $args ) = @_;

   $self->{binary} = delete $args->{binary};

   $self->SUPER::_init( $args );

   my $index = $self->{hs_index};
   $self->{ports} = {
      client     => main::alloc_port( "hearth[$index].client" ),
      federation => main::alloc_port( "hearth[$index].federation" ),
   };
}

sub server_name
{
   my $self = shift;
   return "$self->{bind_host}:$self->{ports}{federation}";
}

sub federation_host
{
   my $self = shift;
   return $self->{bind_host};
}

sub federation_port
{
   my $self = shift;
   return $self->{ports}{federation};
}

sub public_baseurl
{
   my $self = shift;
   return "http://$self->{bind_host}:$self->{ports}{client}";
}

sub start
{
   my $self = shift;

   my $dir = $self->{hs_dir};
   # Each run begins with an empty server.
   remove_tree( "$dir/db", "$dir/appservices" );
   make_path( "$dir/appservices" );
   foreach my $file ( @{ $self->{app_service_config_files} // [] } ) {
      copy( $file, "$dir/appservices/" ) or die "cannot copy $file: $!";
   }

   ensure_ssl_key( "$dir/tls.key" );
   create_ssl_cert( "$dir/tls.crt", "$dir/tls.key", $self->{bind_host} );

   my $authority = getcwd . "/keys/ca.crt";
   my $config = $self->write_file( "hearth.toml", $self->_config );

   # The server's log goes to a file: SyTest keeps only the last lines of what a process prints.
   return $self->_start_process_and_await_connectable(
      command => [
         "env", "SSL_CERT_FILE=$authority", "sh", "-c", 'exec "$0" --config "$1" > "$2" 2>&1',
         $self->{binary}, $config, "$dir/hearth.log",
      ],
      connect_host => $self->{bind_host},
      connect_port => $self->{ports}{client},
      name         => "hearth-$self->{hs_index}",
   );
}

# No limits, because the tests are faster than people; room version 10, because the tests expect creators in the power
# levels and m.room.create with a creator; media without a token, because the tests are older than the alternative.
sub _config
{
   my $self = shift;

   my $dir = $self->{hs_dir};
   my $authority = getcwd . "/keys/ca.crt";
   my $address = $self->{bind_host} eq "localhost" ? "127.0.0.1" : $self->{bind_host};
   my $ports = $self->{ports};

   return <<CONFIG;
server_name = "${\ $self->server_name }"
data_dir = "$dir/db"
client_listen = "$address:$ports->{client}"
federation_listen = "$address:$ports->{federation}"
public_base_url = "${\ $self->public_baseurl }"
tls_certificate = "$dir/tls.crt"
tls_key = "$dir/tls.key"
federation_extra_ca = "$authority"
federation_allow_private_addresses = true
appservice_dir = "$dir/appservices"
registration = "open"
registration_shared_secret = "reg_secret"
guests = true
rate_limits = false
default_room_version = "10"
unauthenticated_media = true
memory_limit = "256 MiB"

[session]
# Some of its users have short passwords.
password_min_chars = 4
# The least that hashing allows: the tests make hundreds of users.
password_hash_memory = "1 MiB"
password_hash_passes = 1

[url_preview]
enabled = true
allow_private_networks = ["127.0.0.0/8"]

[log]
filter = "info,hearth::access=debug"
CONFIG
}

1;
