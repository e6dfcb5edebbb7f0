#pragma once

#define CONFIG_FP_PACKET_BYTES 1024
