use strict;
use warnings;

# SyTest's way to Hearth: chosen with -I Hearth.
package SyTest::HomeserverFactory::Hearth;
use base qw( SyTest::HomeserverFactory );

use File::Basename qw( dirname );
use File::Spec;

# SyTest puts the plugin's folder on its search path for factories only.
require( File::Spec->rel2abs( dirname( __FILE__ ) . "/../Homeserver/Hearth.pm" ) );

sub _init
{
   my $self = shift;

   $self->{binary} = $ENV{HEARTH_BINARY};
   # Tests that are marked for one server only are chosen by this name. Hearth has some of Synapse's own paths.
   $self->{run_as} = $ENV{SYTEST_RUN_AS} // "synapse";

   $self->SUPER::_init( @_ );
}

sub implementation_name
{
   my $self = shift;
   return $self->{run_as};
}

sub get_options
{
   my $self = shift;

   return (
      'hearth-binary=s' => \$self->{binary},
      'run-as=s'        => \$self->{run_as},
      $self->SUPER::get_options(),
   );
}

sub print_usage
{
   print STDERR <<USAGE
       --hearth-binary FILE     - the server to start; default \$HEARTH_BINARY
       --run-as NAME            - also run the tests that are marked for this
                                  implementation, such as "synapse"
USAGE
}

sub create_server
{
   my $self = shift;
   my %params = @_;

   -x ( $self->{binary} // "" ) or die "set HEARTH_BINARY or --hearth-binary to the server's program\n";

   return SyTest::Homeserver::Hearth->new( %params, binary => $self->{binary} );
}

1;
