-- Adds what a node granted while nobody else could know. KEYS: one. ARGV: how long it lives (ms), then of each window and bucket
-- kind (w, b), unit (seconds), how long ago (slots; microseconds), count (of a bucket: level).
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local key = KEYS[1]

local function text(value) return string.format('%.0f', value) end

for argument = 2, #ARGV, 4 do
  local name, ago, count = ARGV[argument + 1], tonumber(ARGV[argument + 2]), tonumber(ARGV[argument + 3])
  if ARGV[argument] == 'w' then
    local slot = math.floor(now / (tonumber(name) * 4000)) - ago
    local held = redis.call('HMGET', key, name .. 's', name .. 'o', name .. 'n')
    local used = tonumber(held[1] or '0')
    local oldest = used > 0 and math.min(tonumber(held[2]), slot) or slot
    local newest = used > 0 and math.max(tonumber(held[3]), slot) or slot
    redis.call('HINCRBY', key, name .. ':' .. text(slot), text(count))
    redis.call('HSET', key, name .. 's', text(used + count), name .. 'o', text(oldest), name .. 'n', text(newest))
  else
    -- Nothing runs out of the one while the other was poured into: a bit stricter.
    local held = redis.call('HMGET', key, name .. 't', name .. 'l')
    local since = math.max(tonumber(held[1] or '0'), now - ago)
    redis.call('HSET', key, name .. 't', text(since), name .. 'l', text(tonumber(held[2] or '0') + count))
  end
end
local lives = tonumber(ARGV[1])
if lives > redis.call('PTTL', key) then redis.call('PEXPIRE', key, text(lives)) end
return 0
