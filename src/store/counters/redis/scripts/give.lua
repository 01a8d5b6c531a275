-- Gives back what was reserved and never granted. KEYS: one. ARGV: how many, then of each rate unit (seconds), burst (0: a window), and the slot it was stamped in.
local count = tonumber(ARGV[1])
for argument = 2, #ARGV, 3 do
  local name, slot = ARGV[argument], ARGV[argument + 2]
  if ARGV[argument + 1] == '0' then
    local field = name .. ':' .. slot
    local given = math.min(count, tonumber(redis.call('HGET', KEYS[1], field) or '0'))
    if given > 0 then
      redis.call('HINCRBY', KEYS[1], field, -given)
      redis.call('HINCRBY', KEYS[1], name .. 's', -given)
    end
  else
    local level = redis.call('HGET', KEYS[1], name .. 'l')
    if level then
      local left = math.max(0, tonumber(level) - count * tonumber(name) * 1000000)
      redis.call('HSET', KEYS[1], name .. 'l', string.format('%.0f', left))
    end
  end
end
return 0
