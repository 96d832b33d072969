use strict;
use warnings;

# TAP, and one line for each test in the file that SYTEST_RESULTS names: outcome, file and name, between tabs.
package SyTest::Output::Lines;

use SyTest::Output::TAP;
our @ISA = qw( SyTest::Output::TAP );

use constant FORMAT => "lines";

my $file = "";
my $results;

sub run_file
{
   my $class = shift;
   ( $file ) = @_;
   return $class->SUPER::run_file( @_ );
}

sub enter_test
{
   my $class = shift;
   return bless $class->SUPER::enter_test( @_ ), "SyTest::Output::Lines::Test";
}

sub enter_multi_test
{
   my $class = shift;
   return bless $class->SUPER::enter_multi_test( @_ ), "SyTest::Output::Lines::Test";
}

sub note
{
   my ( $outcome, $name ) = @_;

   if( !$results ) {
      my $path = $ENV{SYTEST_RESULTS} or return;
      open $results, ">:encoding(UTF-8)", $path or die "cannot write $path: $!";
      $results->autoflush( 1 );
   }
   $name =~ s/\s+/ /g;
   print $results "$outcome\t$file\t$name\n";
}

package SyTest::Output::Lines::Test;
our @ISA = qw( SyTest::Output::TAP::Test );

sub leave
{
   my $self = shift;
   my $outcome = $self->skipped ? "skip" : $self->failed ? "fail" : "pass";
   SyTest::Output::Lines::note( $outcome, $self->name );
   return $self->SUPER::leave( @_ );
}

1;
