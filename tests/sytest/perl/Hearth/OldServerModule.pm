# SyTest asks for Net::Async::HTTP::Server 0.09, and the public Git mirror of CPAN ends with 0.07. This adds, to a
# version below 0.09, the documented things that came later and that SyTest uses. With a newer one it does nothing.
package Hearth::OldServerModule;

use strict;
use warnings;

use Net::Async::HTTP::Server;

if( Net::Async::HTTP::Server->VERSION < 0.09 ) {
   no strict "refs";
   no warnings "redefine";

   my $configure = \&Net::Async::HTTP::Server::configure;
   *Net::Async::HTTP::Server::configure = sub {
      my ( $self, %params ) = @_;
      $self->{request_class} = delete $params{request_class} if exists $params{request_class};
      return $self->$configure( %params );
   };
   *Net::Async::HTTP::Server::make_request = sub {
      my $self = shift;
      return ( $self->{request_class} // "Net::Async::HTTP::Server::Request" )->new( @_ );
   };
   # The old code makes a plain request and hands it over here, after it was queued on its connection.
   my $received = \&Net::Async::HTTP::Server::_received_request;
   *Net::Async::HTTP::Server::_received_request = sub {
      my ( $self, $plain ) = @_;
      my $request = $self->make_request( $plain->{conn}, $plain->{req} );
      $_ = $_ == $plain ? $request : $_ for @{ $plain->{conn}{requests} };
      return $self->$received( $request );
   };

   *Net::Async::HTTP::Server::Request::query_form = sub { return $_[0]{req}->uri->query_form };
   *Net::Async::HTTP::Server::Request::query_param = sub {
      my ( $self, $name ) = @_;
      my @form = $self->query_form;
      my @values;
      while( my ( $key, $value ) = splice @form, 0, 2 ) {
         push @values, $value if $key eq $name;
      }
      return wantarray ? @values : $values[0];
   };
   $Net::Async::HTTP::Server::VERSION = "0.09";
}

1;
