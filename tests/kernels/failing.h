// Thread creation and allocation that fail on request: linked into a test, or preloaded under Python (failing.cc).
#pragma once

extern "C" {
void fail_every_thread(int every);  // from now on every `every`-th creation fails; 0: none
int failed_threads();               // since the last fail_every_thread
void fail_allocation(int number);   // the `number`-th operator new of this thread from now on fails, once; 0: none
int allocation_failed();            // whether it has
}
