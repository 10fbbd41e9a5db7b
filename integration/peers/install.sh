#!/usr/bin/env bash
# Installs what the peers that aren't Go need (Debian), and builds them into bin/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
missing=()
[[ -e /usr/include/zmq.h ]] || missing+=(libzmq3-dev)
[[ -e /usr/include/boost/interprocess/ipc/message_queue.hpp ]] || missing+=(libboost-dev)
command -v g++ >/dev/null || missing+=(g++)
if ((${#missing[@]})); then
	as_root=()
	((EUID == 0)) || as_root=(sudo)
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
mkdir -p bin
g++ -O2 -std=c++17 -o bin/zeromq cpp/zeromq.cpp -lzmq -pthread
g++ -O2 -std=c++17 -o bin/boost cpp/boost.cpp -pthread -lrt
