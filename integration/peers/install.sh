#!/usr/bin/env bash
# Installs what the peers that aren't Go need (Debian), and builds them into bin/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
missing=()
[[ -e /usr/include/zmq.h ]] || missing+=(libzmq3-dev)
[[ -e /usr/include/boost/interprocess/ipc/message_queue.hpp ]] || missing+=(libboost-dev)
[[ -d /usr/include/iceoryx && -x /usr/bin/iox-roudi ]] || missing+=(iceoryx libiceoryx-posh-dev libiceoryx-hoofs-dev)
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
iceoryx=(-I"$(echo /usr/include/iceoryx/v*)" cpp/iceoryx.cpp -liceoryx_posh -liceoryx_hoofs -liceoryx_platform -pthread -lrt)
g++ -O2 -std=c++17 -o bin/iceoryx "${iceoryx[@]}"
g++ -O2 -std=c++17 -DBLOCKING -o bin/iceoryx-wait "${iceoryx[@]}"
