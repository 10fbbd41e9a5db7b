// Package models holds small models of a route's protocol (docs/abi.md section 4), which Spin checks in every state that
// they can reach, and histories of the real queue between processes, which a linearizability checker judges.
//
//	bell.pml     a reader that sleeps, its bell, joining       shmio: Writer.Commit, Writer.Join, Reader.Arm, Inbox.cool
//	space.pml    a sender that waits for room                  shmio: Writer.ArmSpace, Reader.ringSpace; node: outRoute.wait
//	drop.pml     claim, dropTo, inline records; either dies    shmio: Writer.dropOne, Reader.claimAndTake
//	returns.pml  references, the ring of returns, a death      shmio: Writer.Reclaim, Reader.giveBack; node: block, outRoute
//	ending.pml   a route whose sender dies or ends             node: peerDied, inRoute.drained; shmio: Reader.ready
//	end.pml      how a route ends, its memory used again       node: outRoute.end, inRoute.drained, Node.reap; actors: session
//
// Each model names the files that it stands for: who changes one of them changes the model, or says why it still holds.
// Each also has mistakes that can be planted by a -D; TestMistakesAreFound sees that the check finds them, so that a
// model that can't fail isn't mistaken for code that doesn't.
//
// Every step of a model is one atomic operation on a shared word, in any order of the processes: memory is sequentially
// consistent, as sync/atomic is in Go and as docs/abi.md asks of clients in other languages. What is written plainly, a slot
// or an entry of the ring of returns, is published by such a store, and the models check that nobody reads it before or
// writes it while it may be read. There are no time-outs and no backstop: what the code would find again 2 s later is
// a fault here.
//
// The package has no code outside its tests. Those need spin and gcc.
package models
